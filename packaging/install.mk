# SPDX-License-Identifier: Apache-2.0
# install, uninstall and dist, with the variables that packagers know. Nothing is compiled by install if `make` ran before, and nothing
# that is installed names DESTDIR or the build folder.

prefix = /usr/local
exec_prefix = $(prefix)
bindir = $(exec_prefix)/bin
libdir = $(exec_prefix)/lib
includedir = $(prefix)/include
datarootdir = $(prefix)/share
datadir = $(datarootdir)
mandir = $(datarootdir)/man
pkgconfigdir = $(libdir)/pkgconfig
cmakedir = $(libdir)/cmake/flashinfer
bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
INSTALL = install
INSTALL_PROGRAM = $(INSTALL) -m 755
INSTALL_DATA = $(INSTALL) -m 644

public_headers = $(notdir $(wildcard include/flashinfer/*.h))
cmake_files = flashinfer-config.cmake flashinfer-config-version.cmake
# What the command prints of itself.
man_page = $(BUILD)/share/flashinfer.1
completions = $(BUILD)/share/flashinfer.bash $(BUILD)/share/flashinfer.zsh

# Prebuilt kernels, where `make pack` made some.
packs = $(sort $(wildcard $(BUILD)/pack/*))

.PHONY: install uninstall dist

all: $(man_page) $(completions)

$(man_page): $(command)
	@mkdir -p $(@D)
	$(call say,MAN)$(command) help --man >$@

$(BUILD)/share/flashinfer.%: $(command)
	@mkdir -p $(@D)
	$(call say,COMPLETE)$(command) completion $* >$@

# The folder $(1) as seen from the folder of the CMake files, so that the installed tree may be moved.
from_cmakedir = $(shell realpath -ms --relative-to="$(cmakedir)" "$(1)")
fill = sed -e 's|@version@|$(version)|g' -e 's|@soname@|$(soname)|g' -e 's|@prefix@|$(prefix)|' -e 's|@exec_prefix@|$(exec_prefix)|' \
           -e 's|@libdir@|$(libdir)|' -e 's|@includedir@|$(includedir)|' -e 's|@library_folder@|$(call from_cmakedir,$(libdir))|' \
           -e 's|@header_folder@|$(call from_cmakedir,$(includedir))|'

install: $(library) $(static_library) $(command) $(man_page) $(completions)
	$(INSTALL) -d "$(DESTDIR)$(bindir)" "$(DESTDIR)$(includedir)/flashinfer" "$(DESTDIR)$(pkgconfigdir)" "$(DESTDIR)$(cmakedir)" \
	    "$(DESTDIR)$(mandir)/man1" "$(DESTDIR)$(bashcompletiondir)" "$(DESTDIR)$(zshcompletiondir)"
	$(INSTALL_PROGRAM) $(command) "$(DESTDIR)$(bindir)"
	$(INSTALL_PROGRAM) $(library).$(version) "$(DESTDIR)$(libdir)"
	ln -sf libflashinfer.so.$(version) "$(DESTDIR)$(libdir)/$(soname)"
	ln -sf $(soname) "$(DESTDIR)$(libdir)/libflashinfer.so"
	$(INSTALL_DATA) $(static_library) "$(DESTDIR)$(libdir)"
	for header in $(public_headers); do $(INSTALL_DATA) include/flashinfer/$$header "$(DESTDIR)$(includedir)/flashinfer" || exit; done
	$(fill) packaging/flashinfer.pc.in | $(INSTALL_DATA) /dev/stdin "$(DESTDIR)$(pkgconfigdir)/flashinfer.pc"
	for file in $(cmake_files); do $(fill) packaging/$$file.in | $(INSTALL_DATA) /dev/stdin "$(DESTDIR)$(cmakedir)/$$file" || exit; done
	$(INSTALL_DATA) $(man_page) "$(DESTDIR)$(mandir)/man1"
	$(INSTALL_DATA) $(BUILD)/share/flashinfer.bash "$(DESTDIR)$(bashcompletiondir)/flashinfer"
	$(INSTALL_DATA) $(BUILD)/share/flashinfer.zsh "$(DESTDIR)$(zshcompletiondir)/_flashinfer"
ifneq ($(packs),)
	$(INSTALL) -d "$(DESTDIR)$(libdir)/flashinfer"
	$(INSTALL_DATA) $(packs) "$(DESTDIR)$(libdir)/flashinfer"
endif

uninstall:
	rm -f "$(DESTDIR)$(bindir)/flashinfer" "$(DESTDIR)$(libdir)/libflashinfer.so.$(version)" "$(DESTDIR)$(libdir)/$(soname)" \
	    "$(DESTDIR)$(libdir)/libflashinfer.so" "$(DESTDIR)$(libdir)/libflashinfer.a" "$(DESTDIR)$(pkgconfigdir)/flashinfer.pc" \
	    "$(DESTDIR)$(mandir)/man1/flashinfer.1" "$(DESTDIR)$(bashcompletiondir)/flashinfer" "$(DESTDIR)$(zshcompletiondir)/_flashinfer"
	for header in $(public_headers); do rm -f "$(DESTDIR)$(includedir)/flashinfer/$$header"; done
	for file in $(cmake_files); do rm -f "$(DESTDIR)$(cmakedir)/$$file"; done
	rm -rf "$(DESTDIR)$(libdir)/flashinfer"
	for folder in "$(DESTDIR)$(includedir)/flashinfer" "$(DESTDIR)$(cmakedir)"; do \
	    [ ! -d "$$folder" ] || rmdir --ignore-fail-on-non-empty "$$folder" || exit; done

dist:
	@mkdir -p $(BUILD)
	packaging/dist.sh $(BUILD)/flashinfer-c-$(version).tar.gz $(BUILD)
