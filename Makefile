# SPDX-License-Identifier: Apache-2.0
# make demo    sets up, builds, and lets a language model talk        make test      everything that needs no GPU
# make         builds the library and the command                     make test-gpu  the same and the GPU rows
# make help    all targets
#
# Files are found by wildcard: a new op, kernel or test needs no line here.

BUILD ?= build
CC = gcc
OPTIMISE ?= -O2
SANITIZE ?=
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
CFLAGS ?=
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE $(OPTIMISE) -g -fPIC -fvisibility=hidden -fno-math-errno -pthread $(WARNINGS) \
             -Iinclude -Isrc -I. -Idevice $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) $(CFLAGS)
ALL_LDFLAGS = -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
LIBS = -lm -ldl

kernel_sources := $(sort $(wildcard device/*.h device/*/*.h device/*/*.cuh ops/*/*.cuh ops/*/*.cu ops/*/*_cpu.c ops/*/*_cpu.h \
                            ops/*/*_args.h) src/jit/arguments.h)
library_sources := $(filter-out src/harness/%,$(wildcard src/*/*.c)) src/harness/reference.c \
                   $(filter-out %_cpu.c,$(wildcard ops/*/*.c))
harness_sources := $(filter-out src/harness/reference.c,$(wildcard src/harness/*.c))
cli_sources := $(wildcard cli/*.c)
generate_sources := $(wildcard examples/generate/*.c)
quickstart_sources := $(wildcard examples/*.c)
test_sources := $(wildcard tests/*/test_*.c)
test_support_sources := $(filter-out $(test_sources),$(wildcard tests/*/*.c))

# V=1 shows the commands.
V ?=
say = $(if $(V),,@$(if $(findstring s,$(firstword -$(MAKEFLAGS))),:,echo) '  $(1)' $(patsubst $(BUILD)/%,%,$@); )

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
library_objects = $(call object,$(library_sources)) $(BUILD)/embedded_sources.o
harness_objects = $(call object,$(harness_sources))
tests = $(patsubst %.c,$(BUILD)/%,$(test_sources))

library = $(BUILD)/libflashinfer.so
command = $(BUILD)/flashinfer
generate = $(BUILD)/generate
quickstarts = $(patsubst examples/%.c,$(BUILD)/%,$(quickstart_sources))

.PHONY: all demo test test-gpu test-specs tests bench setup setup-demo clean help install
.DELETE_ON_ERROR:

all: $(library) $(command) $(generate) $(quickstarts)

# Installs what is missing, says what and why; silent when nothing is.
setup:
	@tools/setup.sh $(BUILD) test

setup-demo:
	@tools/setup.sh $(BUILD) demo

$(BUILD)/embedded_sources.S: $(kernel_sources) tools/embed_sources.sh
	@mkdir -p $(@D)
	$(call say,EMBED)tools/embed_sources.sh $@ $(kernel_sources)

$(BUILD)/embedded_sources.o: $(BUILD)/embedded_sources.S
	$(call say,AS)$(CC) -c $< -o $@

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libflashinfer.so.0: $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,libflashinfer.so.0 -Wl,-z,defs -Wl,-z,noexecstack $^ $(LIBS) -o $@

$(library): $(BUILD)/libflashinfer.so.0
	@ln -sf $(<F) $@

$(command): $(call object,$(cli_sources)) $(harness_objects) $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -Wl,-Bstatic -ljansson -Wl,-Bdynamic $(LIBS) -o $@

$(generate): $(call object,$(generate_sources)) $(library)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $(call object,$(generate_sources)) -L$(BUILD) -lflashinfer -Wl,-rpath,'$$ORIGIN' $(LIBS) -o $@

$(quickstarts): $(BUILD)/%: $(BUILD)/examples/%.o $(library)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $< -L$(BUILD) -lflashinfer -Wl,-rpath,'$$ORIGIN' $(LIBS) -o $@

# A test is one file test_*.c; the other files of its folder are linked to each test of that folder. Tests of the example see its files.
support_of = $(filter $(BUILD)/$(dir $(1))%,$(call object,$(test_support_sources)))
example_of = $(if $(filter tests/generate/%,$(1)),$(filter-out %/main.o,$(call object,$(generate_sources))))
.SECONDEXPANSION:
$(tests): $(BUILD)/%: $(BUILD)/%.o $$(call support_of,$$*) $$(call example_of,$$*) $(harness_objects) $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lcmocka $(LIBS) -o $@

tests: $(tests)

demo: setup-demo
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all
	@tools/demo.sh $(BUILD) $(DEMO)

test: setup
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all tests
	@tests/run.sh $(BUILD)

test-gpu: setup
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all tests
	@tests/run.sh $(BUILD) --gpu

test-specs: setup
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all
	@tools/with_nvrtc.sh $(BUILD) $(command) specs --all

bench: all
	$(command) bench

prefix ?= /usr/local
install: all
	install -d $(DESTDIR)$(prefix)/include/flashinfer $(DESTDIR)$(prefix)/lib $(DESTDIR)$(prefix)/bin
	install -m 644 include/flashinfer/*.h $(DESTDIR)$(prefix)/include/flashinfer
	install -m 755 $(BUILD)/libflashinfer.so.0 $(DESTDIR)$(prefix)/lib
	ln -sf libflashinfer.so.0 $(DESTDIR)$(prefix)/lib/libflashinfer.so
	install -m 755 $(command) $(DESTDIR)$(prefix)/bin

clean:
	rm -rf $(BUILD)

help:
	@echo 'make            build the library, the command and the examples in $(BUILD)/'
	@echo 'make demo       set up, build, fetch a small language model and run it (DEMO="--max-tokens 64" passes options)'
	@echo 'make test       set up, build, and run everything that needs no GPU'
	@echo 'make test-gpu   the same, and the GPU rows'
	@echo 'make test-specs compile every specialisation of every CUDA kernel for every architecture'
	@echo 'make bench      time every kernel on this machine'
	@echo 'make install    prefix=/usr/local, DESTDIR'
	@echo 'make clean      remove $(BUILD)/'
	@echo 'Variables: CC, CFLAGS, OPTIMISE=-O2, SANITIZE=address,undefined, BUILD=build'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
