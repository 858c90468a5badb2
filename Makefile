# SPDX-License-Identifier: Apache-2.0
# make demo    sets up, builds, and lets a language model talk        make test      everything that needs no GPU
# make         builds the library and the command                     make test-gpu  the same and the GPU rows
# make help    all targets
#
# Files are found by wildcard: a new op, kernel or test needs no line here.

BUILD ?= build
CC = gcc
AR = ar
OBJCOPY = objcopy
OPTIMISE ?= -O2
SANITIZE ?=
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
CFLAGS ?=
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE $(OPTIMISE) -g -fPIC -fvisibility=hidden -fno-math-errno -pthread $(WARNINGS) \
             -Iinclude -Isrc -I. -Idevice \
             $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
LIBS = -lm -ldl

kernel_sources := $(sort $(wildcard device/*.h device/*/*.h device/*/*.cuh ops/*/*.cuh ops/*/*.cu ops/*/*_cpu.c ops/*/*_cpu.h \
                            ops/*/*_args.h) src/jit/arguments.h)
library_sources := $(filter-out src/harness/%,$(wildcard src/*/*.c)) src/harness/reference.c \
                   $(filter-out %_cpu.c,$(wildcard ops/*/*.c)) $(wildcard bindings/*.c)
harness_sources := $(filter-out src/harness/reference.c,$(wildcard src/harness/*.c))
cli_sources := $(wildcard cli/*.c)
generate_sources := $(wildcard examples/generate/*.c)
example_sources := $(wildcard examples/*.c)
test_sources := $(wildcard tests/*/test_*.c)
fuzz_sources := $(wildcard tests/fuzz/fuzz_*.c)
test_support_sources := $(filter-out $(test_sources),$(wildcard tests/*/*.c))

# V=1 shows the commands.
V ?=
say = $(if $(V),,@$(if $(findstring s,$(firstword -$(MAKEFLAGS))),:,echo) '  $(1)' $(patsubst $(BUILD)/%,%,$@); )

object = $(patsubst %.c,$(BUILD)/%.o,$(1))
library_objects = $(call object,$(library_sources)) $(BUILD)/embedded_sources.o
harness_objects = $(call object,$(harness_sources))
tests = $(patsubst %.c,$(BUILD)/%,$(test_sources))
fuzzers = $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(fuzz_sources))

# The version stands in one place. Libraries of one major version replace each other.
version := $(shell sed -n 's/^\#define FLASHINFER_VERSION "\(.*\)"/\1/p' include/flashinfer/core.h)
soname = libflashinfer.so.$(firstword $(subst ., ,$(version)))

library = $(BUILD)/libflashinfer.so
static_library = $(BUILD)/libflashinfer.a
command = $(BUILD)/flashinfer
generate = $(BUILD)/generate
examples = $(patsubst examples/%.c,$(BUILD)/%,$(example_sources))

.PHONY: all demo test test-gpu test-specs tests python wheel fuzz fuzzers build-fuzz bench pack setup setup-demo clean help FORCE
.DELETE_ON_ERROR:

all: $(library) $(static_library) $(command) $(generate) $(examples)

# Installs what is missing, says what and why; silent when nothing is.
setup:
	@tools/setup.sh $(BUILD) test

setup-demo:
	@tools/setup.sh $(BUILD) demo

# Written when it changes, so that a kernel that is gone does not stay embedded.
$(BUILD)/kernel_sources: FORCE
	@mkdir -p $(@D); echo $(kernel_sources) | cmp -s - $@ || echo $(kernel_sources) >$@

FORCE:

$(BUILD)/embedded_sources.S: $(BUILD)/kernel_sources $(kernel_sources) tools/embed_sources.sh
	$(call say,EMBED)tools/embed_sources.sh $@ $(kernel_sources)

$(BUILD)/embedded_sources.o: $(BUILD)/embedded_sources.S
	$(call say,AS)$(CC) -c $< -o $@

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(library).$(version): $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,$(soname) -Wl,-z,defs -Wl,-z,noexecstack -Wl,-Bsymbolic-functions \
	    $^ $(LIBS) -o $@

$(BUILD)/$(soname): $(library).$(version)
	@ln -sf $(<F) $@

$(library): $(BUILD)/$(soname)
	@ln -sf $(<F) $@

# One object in which everything but the public functions is local, so that no name of ours meets a name of the program's.
$(BUILD)/libflashinfer.o: $(library_objects)
	$(call say,LD)$(CC) -r -nostdlib $^ -o $@
	@$(OBJCOPY) --localize-hidden $@

$(static_library): $(BUILD)/libflashinfer.o
	$(call say,AR)rm -f $@; $(AR) rcs $@ $<

$(command): $(call object,$(cli_sources)) $(harness_objects) $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -Wl,-Bstatic -ljansson -Wl,-Bdynamic $(LIBS) -o $@

$(generate): $(call object,$(generate_sources)) $(library)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $(call object,$(generate_sources)) -L$(BUILD) -lflashinfer -Wl,-rpath,'$$ORIGIN' $(LIBS) -o $@

$(examples): $(BUILD)/%: $(BUILD)/examples/%.o $(library)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $< -L$(BUILD) -lflashinfer -Wl,-rpath,'$$ORIGIN' $(LIBS) -o $@

# A test is one file test_*.c; the other files of its folder are linked to each test of that folder. Tests of the example see
# its files.
support_of = $(filter $(BUILD)/$(dir $(1))%,$(call object,$(test_support_sources)))
example_of = $(if $(filter tests/generate/%,$(1)),$(filter-out %/main.o,$(call object,$(generate_sources))))
.SECONDEXPANSION:
$(tests): $(BUILD)/%: $(BUILD)/%.o $$(call support_of,$$*) $$(call example_of,$$*) $(harness_objects) $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lcmocka $(LIBS) -o $@

tests: $(tests) $(library)

# Files of tests/fuzz that are no target are linked to each. clang alone has libFuzzer.
CLANG ?= clang
FUZZ_SECONDS ?= 600
$(fuzzers): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(call object,$(filter-out $(fuzz_sources),$(wildcard tests/fuzz/*.c))) \
            $(filter-out %/main.o,$(call object,$(generate_sources))) $(harness_objects) $(library_objects)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

# What launches on GPUs is looked at there, since no GPU is.
$(BUILD)/fuzz_call: ALL_LDFLAGS += -Wl,--wrap=call_launch,--wrap=tensor_map_encode

fuzzers: $(fuzzers)

build-fuzz:
	@$(MAKE) --no-print-directory -s -j$(shell nproc) BUILD=$(BUILD)/fuzz CC="$(CLANG)" OPTIMISE=-O1 \
	    SANITIZE=address,undefined,fuzzer-no-link fuzzers

fuzz: build-fuzz
	@tests/fuzz/run.sh $(BUILD) $(FUZZ_SECONDS)

demo: setup-demo
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all
	@tools/demo.sh $(BUILD) $(DEMO)

test:
	@tests/run.sh $(BUILD)

test-gpu:
	@tests/run.sh $(BUILD) --gpu

test-specs: setup
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all
	@tools/with_nvrtc.sh $(BUILD) $(command) specs --all

# The Python package as it stands in this tree, for PYTHONPATH=$(BUILD)/python.
python_sources := $(wildcard bindings/python/flashinfer_c/*.py bindings/python/flashinfer_c/*/*.py)

python: $(library) $(command)
	@mkdir -p $(addprefix $(BUILD)/python/flashinfer_c/,lib bin) $(sort $(dir $(patsubst bindings/%,$(BUILD)/%,$(python_sources))))
	@find $(BUILD)/python -xtype l -delete
	@$(foreach f,$(python_sources),ln -sf $(abspath $(f)) $(patsubst bindings/%,$(BUILD)/%,$(f));)
	@ln -sfn $(abspath include) $(BUILD)/python/flashinfer_c/include
	@ln -sf $(abspath $(library)) $(BUILD)/python/flashinfer_c/lib/
	@ln -sf $(abspath $(command)) $(BUILD)/python/flashinfer_c/bin/

# The package with its library in one file, for every CPython.
wheel: $(library) $(command)
	@python3 packaging/wheel.py $(BUILD) $(BUILD)/wheel

bench: all
	$(command) bench

# Prebuilt CPU kernels, for machines without a compiler.
PACK_LEVELS ?= $(if $(filter x86_64,$(shell uname -m)),x86-64-v2 x86-64-v3 x86-64-v4) \
               $(if $(filter aarch64,$(shell uname -m))$(shell command -v aarch64-linux-gnu-gcc),aarch64)
cross_compiler = $(if $(filter $(1),$(shell uname -m)),,$(shell command -v $(1)-linux-gnu-gcc))

pack: $(patsubst %,$(BUILD)/pack/flashinfer-cpu-%.pack,$(PACK_LEVELS))

$(BUILD)/pack/flashinfer-cpu-%.pack: $(command) packaging/demo.kernels
	@install -d -m 755 $(@D)
	$(call say,PACK)$(if $(call cross_compiler,$*),FLASHINFER_CC=$(call cross_compiler,$*) )$(command) pack $* $@ \
	    --from packaging/demo.kernels

include packaging/install.mk

clean:
	rm -rf $(BUILD)

help:
	@echo 'make            build the library, the command and the examples in $(BUILD)/'
	@echo 'make demo       set up, build, fetch a small language model and run it (DEMO="--max-tokens 64" passes options)'
	@echo 'make setup      install what the tests need and is missing; make test does it too'
	@echo 'make test       set up, build, and run everything that needs no GPU'
	@echo 'make test-gpu   the same, and the GPU rows'
	@echo 'make test-specs compile every specialisation of every CUDA kernel for every architecture'
	@echo 'make fuzz       run each fuzz target for FUZZ_SECONDS=600; needs clang'
	@echo 'make bench      time every kernel on this machine'
	@echo 'make pack       prebuilt CPU kernels for machines without a compiler, which make install then installs (PACK_LEVELS)'
	@echo 'make python     the Python package of this tree in $(BUILD)/python'
	@echo 'make wheel      the Python package with its library as a wheel in $(BUILD)/wheel'
	@echo 'make install    the library, headers, pkg-config and CMake files, the command (prefix=/usr/local, libdir, ..., DESTDIR)'
	@echo 'make uninstall  removes what make install put there, given the same variables'
	@echo 'make dist       the sources as $(BUILD)/flashinfer-c-$(version).tar.gz, byte for byte the same wherever it is made'
	@echo 'make clean      remove $(BUILD)/'
	@echo 'Variables: CC, CFLAGS, LDFLAGS, WARNINGS, OPTIMISE=-O2, SANITIZE=address,undefined, BUILD=build'

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
