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
FUZZ_PACKAGES := clang llvm libomp-dev
TSAN_PACKAGES := clang libomp-14-dev
PEER_PACKAGES := libscalapack-openmpi-dev
COVERAGE_PACKAGES := gcovr
SIM_PACKAGES := simgrid libsimgrid-dev

# Asked once, and only when something is compiled: `make deps` may have to come first. The words of
# Open MPI's compiler wrapper come first, then those of the others.
once      = $(eval $(1) := $$(shell $(2)))$($(1))
LIBS_PC  := hdf5-serial openblas libconfig hwloc libcjson libpcre2-8 libcrypto libxxhash
PC_FLAGS  = $(call once,PC_FLAGS,pkg-config --cflags $(LIBS_PC))
PC_LIBS   = $(call once,PC_LIBS,pkg-config --libs $(LIBS_PC))
MPI_FLAGS = $(call once,MPI_FLAGS,$(MPICC) --showme:compile 2>/dev/null || $(MPICC) -compile_info | cut -d' ' -f2-)
MPI_LIBS  = $(call once,MPI_LIBS,$(MPICC) --showme:link 2>/dev/null || $(MPICC) -link_info | cut -d' ' -f2-)
VERSION   = $(shell sed -n 's/^.define SAF_VERSION "\(.*\)"/\1/p' include/saf/core.h)
COMMIT   := $(shell git describe --always --abbrev=12 --dirty --exclude='*' 2>/dev/null || echo unknown)

OPT      ?= -O3 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
CFLAGS   ?= $(OPT)
# What the compiler makes code for: the base instruction set, and the folders of newer ones.
ARCH     := $(firstword $(subst -, ,$(or $(shell $(CC) -dumpmachine 2>/dev/null),$(shell uname -m))))
BASE_x86_64     := -march=x86-64-v3
BASE_aarch64    := -march=armv8-a
KERNELS_x86_64  := avx2 avx512 amx
KERNELS_aarch64 := neon
# The numbers rule: no contraction, no fast math; one base instruction set, newer ones by folder.
SAF_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Isrc $(BASE_$(ARCH)) -ffp-contract=off \
             -fno-math-errno -fopenmp $(WARN) $(SAN)
SAF_LIBS   = $(PC_LIBS) $(MPI_LIBS) -fopenmp -lm -lpthread -ldl $(SAN)

ROOMS    ?= *
SRC      := $(wildcard $(ROOMS:%=src/%/*.c) $(if $(filter * job,$(ROOMS)),src/job/*/*.c) $(patsubst %,src/kernel/%/*.c,scalar $(KERNELS_$(ARCH))))
OBJ      := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(SRC))
LIB_OBJ  := $(filter-out $(BUILD)/obj/cli/%,$(OBJ))
CLI_OBJ  := $(filter $(BUILD)/obj/cli/%,$(OBJ))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*.c))
MPITESTS := $(patsubst tests/mpi/%.c,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/*.c))
FUZZ     := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/fuzz_%,$(wildcard tests/fuzz/fuzz_*.c))
# Where SimGrid is installed; its threads take turns on stacks that sanitizers do not know.
SIM_IF_THERE := $(if $(SAN),,$(if $(wildcard /usr/include/simgrid/engine.h),$(BUILD)/sim-flights $(BUILD)/sim-product))
TESTOBJ  := $(patsubst tests/%.c,$(BUILD)/obj/tests/%.o,$(wildcard tests/unit/*.c tests/mpi/*.c tests/fuzz/*.c))
ifeq ($(ARCH),x86_64)
AVX512   := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512
VNNI     := $(AVX512) -mavx512vnni
AMX      := $(VNNI) -mamx-tile -mamx-int8
else ifeq ($(ARCH),aarch64)
# Out of the order written, a kernel's loop needs more registers than there are (gcc).
NEON     := $(if $(findstring clang,$(CC)),,-fno-schedule-insns)
DOTPROD  := $(NEON) -march=armv8.2-a+dotprod
endif

# V=1 shows the commands.
ifeq ($(V),)
SAY = @printf '  %-5s %s\n'
Q = @
else
SAY = @:
endif
# A make inside, on all cores unless the caller said how many.
MAKE_ALL  = $(MAKE) --no-print-directory $(if $(V),,-s) \
            $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$(nproc))

.PHONY: all programs tools tidy deps deps-lint demo test test-unit test-mpi test-cli test-exact test-resume \
        test-signals test-crash test-cluster test-neon test-inject lint check-layers format asan ubsan tsan \
        coverage count fuzz fuzz-targets \
        bench bench-model bench-matmul bench-attention bench-matrix bench-train \
        bench-ranks bench-link bench-loading bench-choice bench-plan bench-sim bench-scaling sim-programs bench-meet bench-peers bench-peers-comm bench-peers-matrix install uninstall clean help
.SECONDARY: $(TESTOBJ)
all: $(BUILD)/saf $(BUILD)/libsaf.a ## build/saf and build/libsaf.a (the default)
programs: all $(UNIT) $(MPITESTS) $(BUILD)/inject.so $(BUILD)/tests/tools/leaks $(SIM_IF_THERE) # and all that the tests run

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Says what is missing, in place of a compiler's complaints.
tools:
	@for tool in pkg-config $(CC) $(MPICC); do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing: \`make deps\` installs what saf needs (Debian)" >&2; exit 1; }; done
	@pkg-config --print-errors --exists $(LIBS_PC) || \
	  { echo "a library is missing: \`make deps\` installs what saf needs (Debian)" >&2; exit 1; }

# $(BUILD)/$(1) holds the text of the variable $(2) and is written, after $(3), when that is another
# one: what depends on it is then made again.
define stamp
ifneq ($$(file <$(BUILD)/$(1)),$$($(2)))
.PHONY: $(BUILD)/$(1)
$(BUILD)/$(1): $(3)
endif
$(BUILD)/$(1):
	@mkdir -p $$(@D)
	@printf '%s\n' '$$(subst ','\'',$$($(2)))' >$$@
endef
FLAGS := $(strip $(CC) $(CFLAGS) $(SAF_CFLAGS) $(AMX) $(DOTPROD) $(MPICC))
$(eval $(call stamp,flags,FLAGS,tools))
$(eval $(call stamp,members,OBJ))
$(eval $(call stamp,commit,COMMIT))

$(BUILD)/libsaf.a: $(LIB_OBJ) $(BUILD)/members
	$(SAY) AR $@
	@rm -f $@
	$(Q)ar rcs $@ $(LIB_OBJ)

$(BUILD)/saf: $(CLI_OBJ) $(BUILD)/libsaf.a
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $(CLI_OBJ) $(BUILD)/libsaf.a $(SAF_LIBS)

# The flags of one source, for its object and for clang-tidy.
COMPILE = $(CFLAGS) $(SAF_CFLAGS) $(ISA) $(PC_FLAGS) $(EXTRA)
$(BUILD)/obj/kernel/avx512/% $(BUILD)/tidy/kernel/avx512/%: ISA := $(AVX512)
# Loops of some 250 instructions: where they begin is worth 10 % on a Zen 5.
$(BUILD)/obj/kernel/avx512/vnni.o $(BUILD)/tidy/kernel/avx512/vnni.ok: ISA := $(VNNI) -falign-functions=64 -falign-loops=64
$(BUILD)/obj/hw/loops_avx512.o $(BUILD)/tidy/hw/loops_avx512.ok: ISA := $(AVX512)
$(BUILD)/obj/hw/loops_vnni.o $(BUILD)/tidy/hw/loops_vnni.ok: ISA := $(VNNI)
$(BUILD)/obj/hw/loops_amx.o $(BUILD)/tidy/hw/loops_amx.ok: ISA := $(AMX)
$(BUILD)/obj/hw/loops_dotprod.o $(BUILD)/tidy/hw/loops_dotprod.ok: ISA := $(DOTPROD)
$(BUILD)/obj/kernel/amx/% $(BUILD)/tidy/kernel/amx/%: ISA := $(AMX)
$(BUILD)/obj/kernel/neon/% $(BUILD)/tidy/kernel/neon/%: ISA := $(NEON)
$(BUILD)/obj/kernel/neon/dotprod.o $(BUILD)/tidy/kernel/neon/dotprod.ok: ISA := $(DOTPROD)
$(BUILD)/obj/comm/% $(BUILD)/tidy/comm/%: EXTRA = $(MPI_FLAGS)
$(BUILD)/obj/job/finish.o $(BUILD)/tidy/job/finish.ok: EXTRA = -DSAF_COMMIT='"$(COMMIT)"'
$(BUILD)/obj/job/finish.o: $(BUILD)/commit
$(BUILD)/obj/tests/% $(BUILD)/tidy/tests/%: EXTRA = -Itests
$(BUILD)/obj/kernel/%: EXTRA = $(KERNEL_FLAGS)

define compile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(COMPILE) -MMD -MP -c -o $@ $<
endef
$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags
	$(compile)
$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags
	$(compile)
define link-test
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $< $(BUILD)/libsaf.a -lcmocka $(SAF_LIBS)
endef
$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libsaf.a
	$(link-test)
$(BUILD)/tests/mpi/%: $(BUILD)/obj/tests/mpi/%.o $(BUILD)/libsaf.a
	$(link-test)
FUZZ_OBJ := $(patsubst %,$(BUILD)/obj/tests/fuzz/%.o,fuzz gguf_fields gguf_mutate h5_edit checkpoint_set \
            checkpoint_resume)
fuzz-targets: $(FUZZ)
$(BUILD)/tests/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(FUZZ_OBJ) $(BUILD)/libsaf.a
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $< $(FUZZ_OBJ) $(BUILD)/libsaf.a $(SAF_LIBS) -fsanitize=fuzzer \
	  -Wl,--wrap=mmap,--wrap=munmap,--wrap=saf_memory_spare

$(BUILD)/tests/tools/%: $(BUILD)/obj/tests/tools/%.o $(BUILD)/libsaf.a
	$(link-test)
# Preloaded into saf by tests; without the flags of a sanitizer, whose library it would need first.
$(BUILD)/inject.so: tests/tools/inject.c $(BUILD)/flags
	$(SAY) LINK $@
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -O1 -g -fPIC -shared $(WARN) -o $@ $< -ldl

-include $(patsubst %.o,%.d,$(OBJ) $(TESTOBJ))

# T=name runs the tests whose file name contains it.
RUN = BUILD=$(BUILD) PYTHON=$(PYTHON) NP="$(NP)" tests/run "$(T)"
test: deps ## install what is missing, build, run every test (T=name: those with it in their name)
	+@$(MAKE_ALL) programs
	@$(RUN)
test-unit: programs ## one kind of test
	@KINDS=unit $(RUN)
test-mpi: programs ## on 1 to 4 ranks, or as many as NP says
	@KINDS=mpi $(RUN)
test-cli: programs ## whole commands
	@KINDS=cli $(RUN)
test-exact: all ## one job over many layouts: one hash; all of those of which `make test` runs the most unlike
	@ALL=1 KINDS=exact $(RUN)
test-cluster: all $(patsubst %,$(BUILD)/tests/mpi/%,test_comm_near test_comm_shared test_matrix test_matrix_resume) ## jobs over hosts and under Slurm, both set up on this machine for the test
	@tests/tools/install-packages $(CLUSTER_PACKAGES)
	@KINDS=cluster $(RUN)
test-resume: all ## a job that is stopped and goes on: from every layout to every other
	@LIMIT=14400 SAF_TEST_RESUME_LONG=1 KINDS=cli BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run test_resume
test-matmul: all $(BUILD)/tests/mpi/test_matrix_sizes ## products of all lengths on 1 to 9 ranks; and one killed KILLS times (50) at random moments
	@LIMIT=14400 SAF_TEST_MATMUL_LONG=1 SAF_TEST_KILLS=$(or $(KILLS),50) SAF_TEST_SEED=$(or $(SEED),11) \
	  KINDS="cli matmul" BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run "$(or $(T),matmul)"
test-signals: all ## a job that is asked to stop, from its first line on in steps of 10 ms
	@LIMIT=14400 SAF_TEST_SIGNALS=long KINDS=cli BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run test_signals
test-crash: all ## a job that is killed N times (600), a third of them while it writes a checkpoint
	@LIMIT=14400 N=$(or $(N),600) SAF_TEST_SIGNALS=crash KINDS=cli BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run test_signals
test-walltimes: all ## a job of several walltimes that Slurm starts again: minutes
	@tests/tools/install-packages $(CLUSTER_PACKAGES)
	@SAF_TEST_WALLTIMES=1 KINDS=cluster BUILD=$(BUILD) PYTHON=$(PYTHON) tests/run test_slurm
test-neon: all $(BUILD)/tests/print_logits ## the kernels for aarch64, under qemu, against those of this machine
	@BUILD=$(BUILD) PYTHON=$(PYTHON) tests/tools/test-neon "$(T)"
test-inject: all $(BUILD)/inject.so ## every call for memory or a file made to fail in turn (minutes; CASE=, EVERY=n)
	@BUILD=$(BUILD) $(PYTHON) tests/inject/campaign.py $(if $(CASE),--case $(CASE)) --every $(or $(EVERY),1)

demo: deps ## install what is missing, build, run the main job over three ranks
	+@$(MAKE_ALL) all
	@OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	  mpirun -np 3 --oversubscribe $(BUILD)/saf run jobs/demo.cfg --fresh

deps: ## install the packages that saf needs (Debian)
	@tests/tools/install-packages $(PACKAGES)
deps-lint: ## install those that lint needs
	@tests/tools/install-packages $(LINT_PACKAGES)

format: ## lay out every source with clang-format
	clang-format -i $$(git ls-files '*.c' '*.h')
check-layers: ## who may include whom
	@tests/tools/check-layers
lint: deps deps-lint check-layers ## formatting, warnings of gcc and clang, clang-tidy, shellcheck: all errors
	@BUILD=$(BUILD)/lint tests/tools/lint
# What clang-tidy finds in every source. It is given one at a time: it mixes up some checks otherwise.
tidy: $(patsubst $(BUILD)/obj/%.o,$(BUILD)/tidy/%.ok,$(OBJ))
define clang-tidy
	@mkdir -p $(@D)
	$(SAY) TIDY $<
	$(Q)clang-tidy --quiet $< -- $(COMPILE) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@
endef
$(BUILD)/tidy/%.ok: src/%.c $(BUILD)/obj/%.o .clang-tidy
	$(clang-tidy)

SANITIZED = $(MAKE_ALL) NP="1 2 4" OPT="-O1 -g1"
asan: ## the tests under address and leak sanitizers
	+@KINDS="unit mpi cli" $(SANITIZED) BUILD=$(BUILD)/asan SAN="-fsanitize=address -fno-omit-frame-pointer" test
ubsan: ## the tests under the undefined behaviour sanitizer
	+@KINDS="unit mpi cli" $(SANITIZED) BUILD=$(BUILD)/ubsan \
	  SAN="-fsanitize=undefined -fno-sanitize-recover=undefined" test
# With clang and its OpenMP runtime: that of gcc meets its threads with futexes of its own, which the
# sanitizer does not see, so that everything a parallel loop writes looks like a race. Clang's has
# libarcher, which tells it. What was not compiled with the sanitizer (libomp itself) is left out.
TSAN_TESTS = $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_kernel_*.c) tests/unit/test_comm_watch.c \
              tests/unit/test_comm_ring.c)
tsan: ## the kernels and the watchdog's thread under the thread sanitizer
	@tests/tools/install-packages $(TSAN_PACKAGES)
	+@$(SANITIZED) BUILD=$(BUILD)/tsan CC=clang SAN="-fsanitize=thread" $(TSAN_TESTS:%=$(BUILD)/tsan/tests/%)
	@for test in $(TSAN_TESTS); do KINDS=unit BUILD=$(BUILD)/tsan tests/run unit/$$test || exit 1; done
coverage: ## how many lines the tests run, by room: an error below 90 %, or 95 % of a parser
	@tests/tools/install-packages $(COVERAGE_PACKAGES)
	+@$(SANITIZED) BUILD=$(BUILD)/coverage SAN="--coverage -fprofile-update=prefer-atomic" count
	@$(PYTHON) tests/tools/coverage.py $(BUILD)/coverage
count: programs # all in one make: a test that builds does it with the same flags
	@find $(BUILD) -name '*.gcda' -delete
	@KINDS="unit mpi cli" $(RUN)

# Counted instead of checked in place, and without undefined behaviour, the kernels compile in a tenth
# of the time.
FUZZED := BUILD=$(BUILD)/fuzz CC=clang OPT="-O1 -g1 -fno-omit-frame-pointer" \
          SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" \
          KERNEL_FLAGS="-fno-sanitize=undefined -mllvm -asan-instrumentation-with-call-threshold=0"
fuzz: ## hostile input made up for SECONDS (60), shared by all of tests/fuzz, or the target T
	@tests/tools/install-packages $(PACKAGES) $(FUZZ_PACKAGES)
	+@$(MAKE_ALL) $(FUZZED) fuzz-targets
	@BUILD=$(BUILD)/fuzz PYTHON=$(PYTHON) tests/tools/fuzz "$(or $(SECONDS),60)" "$(T)"

bench: bench-model bench-matmul bench-attention bench-matrix bench-train bench-ranks bench-link bench-plan bench-meet ## every benchmark
bench-model: all ## prefill, decode and loading on one rank against what it could do, by TYPES and THREADS
	@BUILD=$(BUILD) $(PYTHON) tests/bench/model.py
bench-matmul: $(BUILD)/bench-matmul ## products alone, beside the yardsticks, by TYPES, THREADS, TOKENS and SHAPES (RxK)
	@for type in $${TYPES:-q8_0 q4_k}; do for t in $${THREADS:-1 2}; do for n in $${TOKENS:-1 16 512}; do \
	for s in $${SHAPES:-3072x1024 1024x3072}; do $< $$type $$t $$n $${s%x*} $${s#*x} || exit 1; done; done; done; done
bench-attention: $(BUILD)/bench-attention ## attention alone, beside the yardsticks
	@for type in f16 q8_0; do for t in $${THREADS:-1 2}; do $< $$type $$t $(SHAPE) || exit 1; done; done
bench-meet: $(BUILD)/bench-meet ## meetings of RANKS ranks (2) that share memory, by BYTES each writes
	@for n in $${BYTES:-64 4096 65536}; do OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	mpirun -np $${RANKS:-2} --bind-to core $< $$n || exit 1; done
bench-peers-comm: $(BUILD)/bench-peer_comm ## messages of RANKS ranks (2) by saf and by MPI itself, in turn, up to BYTES
	@OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	mpirun -np $${RANKS:-2} --bind-to core $< $${BYTES:-67108864}
$(BUILD)/obj/tests/bench/peer_comm.o: EXTRA = -Itests $(MPI_FLAGS)
bench-peers: bench-peers-comm bench-peers-matrix ## saf beside MPI itself and ScaLAPACK, in turn
bench-peers-matrix: ## products of RANKS ranks (2) by saf and by ScaLAPACK, in turn, by TYPES and SIZES
	@tests/tools/install-packages $(PEER_PACKAGES)
	+@$(MAKE_ALL) $(BUILD)/bench-peer_matrix
	@for d in $${TYPES:-f32 f64}; do for n in $${SIZES:-1024 2048 4096}; do \
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	mpirun -np $${RANKS:-2} --bind-to core $(BUILD)/bench-peer_matrix $$d $$n $${REPEATS:-9} || exit 1; done; done
$(BUILD)/bench-peer_matrix: SAF_LIBS += -lscalapack-openmpi
bench-matrix: $(BUILD)/bench-matrix ## distributed products against OpenBLAS with as many threads, by RANKS (2), TYPES and SHAPES (MxNxK)
	@for d in $${TYPES:-f32 f64}; do for s in $${SHAPES:-1024x1024x1024 2048x2048x2048 4096x4096x4096 \
	256x256x100000 50000x128x128 20000x1x8192 1x20000x8192}; do \
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	mpirun -np $${RANKS:-2} --bind-to none $< $$d $$(echo $$s | tr x ' ') $${REPEATS:-9} || exit 1; done; done
bench-train: $(BUILD)/bench-train ## steps of training by RANKS ranks (2): alone, each by itself, together; by SHAPE, VOCAB, CONTEXT, BATCH, MICRO and SHARD=1
	@OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -np $${RANKS:-2} --bind-to core $< \
	$${SHAPE:-4:512:8:4:64:1408} $${VOCAB:-1024} $${CONTEXT:-256} $${BATCH:-16} $${MICRO:-4} $${REPEATS:-5}
$(BUILD)/bench-%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/libsaf.a
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $< $(BUILD)/libsaf.a $(SAF_LIBS)
bench-ranks: all $(BUILD)/bench-gaps ## two ranks against one, and against two processes that share nothing, by CASES and TYPE
	@BUILD=$(BUILD) $(PYTHON) tests/bench/ranks.py
bench-plan: all $(BUILD)/bench-yard ## plans made from yardsticks of the same moment, against what was measured then, by SHAPES, TYPES, LAYOUTS and JOBS
	@BUILD=$(BUILD) $(PYTHON) tests/bench/plan.py
bench-choice: all ## what plans choose for two hosts, against what is fastest there, by RATES, JOBS and TYPE
	@tests/tools/install-packages $(CLUSTER_PACKAGES)
	@BUILD=$(BUILD) $(PYTHON) tests/bench/choice.py
bench-loading: all ## a model that one of two hosts has, over a link of 1 Gbit/s: nine tenths of its rate
	@tests/tools/install-packages $(CLUSTER_PACKAGES)
	@SHARE=90 BUILD=$(BUILD) PYTHON=$(PYTHON) bash tests/cluster/test_loading.sh
bench-link: all ## the same two ranks on one host and on two with a link, by CASES, RATE and TYPE
	@BUILD=$(BUILD) $(PYTHON) tests/bench/link.py

# The engine and the products on a cluster that is simulated. What computes and what sends is replaced
# (tests/sim/sim.h): what is not in the archive's own comm is not taken from it.
SIM_OBJ  := $(patsubst %,$(BUILD)/obj/tests/sim/%.o,cluster comm shared)
SIM_WRAP := saf_clock_s saf_stage_forward saf_stage_logit_rows saf_stage_tick saf_sampler_new \
            saf_blas_load saf__call_multiply saf__call_add saf__call_end saf__multiply_slice
comma    := ,
sim-programs: $(BUILD)/sim-flights $(BUILD)/sim-product
$(BUILD)/sim-flights: $(BUILD)/obj/tests/sim/stage.o
$(BUILD)/sim-product: $(BUILD)/obj/tests/sim/calls.o
$(BUILD)/sim-%: $(BUILD)/obj/tests/sim/%.o $(SIM_OBJ) $(BUILD)/libsaf.a
	$(SAY) LINK $@
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(BUILD)/libsaf.a $(PC_LIBS) -lsimgrid -fopenmp -lm -lpthread -ldl $(SAN) \
	  $(SIM_WRAP:%=-Wl$(comma)--wrap=%)
bench-sim: all ## plans against simulations of the same runs on 8 to 512 ranks, by CASES (half an hour)
	@tests/tools/install-packages $(SIM_PACKAGES)
	+@$(MAKE_ALL) sim-programs
	@BUILD=$(BUILD) $(PYTHON) tests/sim/sim.py
bench-scaling: all ## the tables of doc/scaling.md, by plans alone
	@BUILD=$(BUILD) $(PYTHON) tests/sim/scaling.py

install: all ## into PREFIX (/usr/local), below DESTDIR if that is set
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/saf
	install -m 755 $(BUILD)/saf $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/libsaf.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 include/saf/*.h $(DESTDIR)$(PREFIX)/include/saf/
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(abspath $(PREFIX))|; s|@VERSION@|$(VERSION)|; s|@REQUIRES@|$(LIBS_PC)|' \
	  -e 's|@LIBS@|$(MPI_LIBS) -fopenmp -lm -lpthread -ldl $(SAN)|' saf.pc.in >$(BUILD)/saf.pc
	install -m 644 $(BUILD)/saf.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/
uninstall: ## what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/saf $(DESTDIR)$(PREFIX)/lib/libsaf.a \
	  $(DESTDIR)$(PREFIX)/lib/pkgconfig/saf.pc
	rm -rf $(DESTDIR)$(PREFIX)/include/saf
	@[ -z "$(DESTDIR)" ] || for d in bin lib/pkgconfig include; do \
	  (cd $(DESTDIR) && rmdir -p --ignore-fail-on-non-empty $(PREFIX:/%=%)/$$d); done

clean: ## everything that was built
	rm -rf $(BUILD) tests/*/__pycache__
