# saf: a cluster compute job runner on MPI. `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   ?= build
ifeq ($(origin CC),default)
CC      := gcc
endif
MPICC   ?= mpicc
PYTHON  ?= /usr/bin/python3
NP      ?= 1 2 3 4

PACKAGES := gcc make pkg-config git ca-certificates libopenmpi-dev openmpi-bin libhdf5-dev hdf5-tools \
            libopenblas-dev libconfig-dev libhwloc-dev libcjson-dev libpcre2-dev librandom123-dev \
            libssl-dev libxxhash-dev libzstd-dev libcmocka-dev python3 python3-numpy python3-h5py \
            python3-pandas iproute2
CLUSTER_PACKAGES := slurmctld slurmd slurm-client munge iproute2 util-linux
LINT_PACKAGES := clang clang-format clang-tidy libomp-dev shellcheck

# What pkg-config does not know is asked only when something is compiled (make deps comes first).
LIBS_PC  := hdf5-serial openblas libconfig hwloc libcjson libpcre2-8 libcrypto libxxhash
PC_FLAGS  = $(shell pkg-config --cflags $(LIBS_PC))
PC_LIBS   = $(shell pkg-config --libs $(LIBS_PC))
MPI_FLAGS = $(shell $(MPICC) --showme:compile 2>/dev/null || $(MPICC) -compile_info | cut -d' ' -f2-)
MPI_LIBS  = $(shell $(MPICC) --showme:link 2>/dev/null || $(MPICC) -link_info | cut -d' ' -f2-)
VERSION   = $(shell sed -n 's/^.define SAF_VERSION "\(.*\)"/\1/p' include/saf/core.h)
COMMIT   := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

OPT      ?= -O3 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
CFLAGS   ?= $(OPT)
# The numbers rule: no contraction, no fast math; one base instruction set, newer ones by folder.
SAF_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -march=x86-64-v3 -ffp-contract=off \
             -fno-math-errno -fopenmp $(WARN) $(SAN) -MMD -MP
SAF_LIBS   = $(PC_LIBS) $(MPI_LIBS) -fopenmp -lm -lpthread $(SAN)

SRC      := $(wildcard src/*/*.c src/kernel/*/*.c)
MAIN     := $(BUILD)/obj/cli/main.o
OBJ      := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(SRC))
LIB_OBJ  := $(filter-out $(BUILD)/obj/cli/%,$(OBJ))
CLI_OBJ  := $(filter $(BUILD)/obj/cli/%,$(OBJ))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
MPITESTS := $(patsubst tests/mpi/%.c,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/test_*.c))

# V=1 shows the commands.
ifeq ($(V),)
SAY = @printf '  %-5s %s\n'
Q = @
else
SAY = @:
endif

# After deps, a make of its own on all processors, unless the caller said how many.
BUILD_NOW = +@$(MAKE) --no-print-directory $(if $(V),,-s) $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$(nproc))

.PHONY: all tools deps deps-lint demo test test-unit test-mpi test-cli test-exact test-cluster lint \
        check-layers format asan ubsan bench bench-rank bench-pipeline install uninstall clean help
all: $(BUILD)/saf $(BUILD)/libsaf.a

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Says what is missing, in place of a compiler's complaints.
tools:
	@for tool in pkg-config $(CC) $(MPICC); do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing: \`make deps\` installs what saf needs (Debian)" >&2; exit 1; }; done
	@pkg-config --print-errors --exists $(LIBS_PC) || \
	  { echo "a library is missing: \`make deps\` installs what saf needs (Debian)" >&2; exit 1; }
$(OBJ): | tools

$(BUILD)/libsaf.a: $(LIB_OBJ)
	$(SAY) AR $@
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/saf: $(CLI_OBJ) $(BUILD)/libsaf.a
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $^ $(SAF_LIBS)

AVX512   := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
$(BUILD)/obj/kernel/avx512/%.o: ISA := $(AVX512)
$(BUILD)/obj/kernel/avx512/vnni.o: ISA := $(AVX512) -mavx512vnni
$(BUILD)/obj/comm/%.o: EXTRA = $(MPI_FLAGS)
$(BUILD)/obj/job/finish.o: EXTRA = -DSAF_COMMIT='"$(COMMIT)"'
$(BUILD)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS) $(SAF_CFLAGS) $(ISA) $(PC_FLAGS) $(EXTRA) -c -o $@ $<

$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libsaf.a
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS) $(SAF_CFLAGS) $(PC_FLAGS) -Itests -o $@ $< $(BUILD)/libsaf.a -lcmocka $(SAF_LIBS)
$(BUILD)/tests/mpi/%: tests/mpi/%.c $(BUILD)/libsaf.a
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS) $(SAF_CFLAGS) $(PC_FLAGS) -Itests -o $@ $< $(BUILD)/libsaf.a -lcmocka $(SAF_LIBS)

-include $(OBJ:.o=.d) $(addsuffix .d,$(UNIT) $(MPITESTS))

# T=name runs the tests whose file name contains it.
test: deps ## install what is missing, build, run every test
	$(BUILD_NOW) all $(UNIT) $(MPITESTS)
	@BUILD=$(BUILD) PYTHON=$(PYTHON) NP="$(NP)" tests/run "$(T)"
test-unit: all $(UNIT)
	@BUILD=$(BUILD) KINDS=unit tests/run "$(T)"
test-mpi: all $(MPITESTS)
	@BUILD=$(BUILD) KINDS=mpi NP="$(NP)" tests/run "$(T)"
test-cli: all
	@BUILD=$(BUILD) PYTHON=$(PYTHON) KINDS=cli tests/run "$(T)"

test-exact: all ## one job over many layouts: one hash
	@BUILD=$(BUILD) PYTHON=$(PYTHON) KINDS=exact tests/run "$(T)"
test-cluster: all ## jobs over hosts and under Slurm, both set up on this machine for the test
	@tests/tools/install-packages $(CLUSTER_PACKAGES)
	@BUILD=$(BUILD) PYTHON=$(PYTHON) KINDS=cluster tests/run "$(T)"

demo: deps ## install what is missing, build, run the main job over three ranks
	$(BUILD_NOW) all
	@OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive \
	  mpirun -np 3 --oversubscribe $(BUILD)/saf run jobs/demo.cfg

deps: ## install the packages that saf needs (Debian)
	@tests/tools/install-packages $(PACKAGES)
deps-lint:
	@tests/tools/install-packages $(LINT_PACKAGES)

check-layers: ## who may include whom
	@tests/tools/check-layers
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
lint: deps-lint check-layers ## formatting, warnings as errors with gcc and clang, clang-tidy, shellcheck
	@tests/tools/lint

asan: ## the tests under address and leak sanitizers
	KINDS="unit mpi cli" $(MAKE) BUILD=$(BUILD)/asan OPT="-O1 -g" SAN="-fsanitize=address -fno-omit-frame-pointer" test
ubsan:
	KINDS="unit mpi cli" $(MAKE) BUILD=$(BUILD)/ubsan OPT="-O1 -g" SAN="-fsanitize=undefined -fno-sanitize-recover=undefined" test

bench: bench-rank bench-pipeline ## every benchmark
bench-rank: all ## prefill and decode of one rank, by type and threads
	@BUILD=$(BUILD) $(PYTHON) tests/bench/model.py
bench-pipeline: all ## two ranks against one, and against two processes that share nothing
	@BUILD=$(BUILD) $(PYTHON) tests/bench/pipeline.py

install: all ## PREFIX=/usr/local DESTDIR=
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/saf
	install -m 755 $(BUILD)/saf $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/libsaf.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 include/saf/*.h $(DESTDIR)$(PREFIX)/include/saf/
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(abspath $(PREFIX))|; s|@VERSION@|$(VERSION)|; s|@REQUIRES@|$(LIBS_PC)|' \
	  -e 's|@LIBS@|$(MPI_LIBS) -fopenmp -lm -lpthread $(SAN)|' saf.pc.in >$(BUILD)/saf.pc
	install -m 644 $(BUILD)/saf.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/saf $(DESTDIR)$(PREFIX)/lib/libsaf.a \
	  $(DESTDIR)$(PREFIX)/lib/pkgconfig/saf.pc
	rm -rf $(DESTDIR)$(PREFIX)/include/saf

clean:
	rm -rf $(BUILD)
