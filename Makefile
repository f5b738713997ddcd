# legible: `make help` lists what there is to make.

# ---- tools ---------------------------------------------------------------------------------------
ifeq ($(origin CXX),default)
CXX := $(firstword $(foreach c,g++ clang++ c++,$(if $(shell command -v $(c)),$(c))) g++)
endif
PYTHON ?= python3
CTEST ?= ctest
NVCC ?= nvcc
# $(call need,program,the setting that names it,how to install it)
need = $(if $(shell command -v $(1)),,$(error $(2)=$($(2)): there is no such program. \
    Install one with: $(3)))
# The first word, because of CXX="ccache g++"; Python's path may hold spaces.
NEED_CXX = $(call need,$(firstword $(CXX)),CXX,sudo apt-get install g++ (Debian, Ubuntu) \
    or xcode-select --install (macOS))
NEED_PYTHON = $(call need,"$(PYTHON)",PYTHON,sudo apt-get install python3 (Debian, Ubuntu) \
    or brew install python (macOS))
NEED_CTEST = $(call need,$(CTEST),CTEST,sudo apt-get install cmake (Debian, Ubuntu) \
    or brew install cmake (macOS))
NEED_NVCC = $(call need,$(firstword $(NVCC)),NVCC,https://developer.nvidia.com/cuda-downloads \
    (or: make emu, which needs no CUDA))

# ---- flags ---------------------------------------------------------------------------------------
# The same bits everywhere need -ffp-contract=off (no fusing but where the code says fma);
# -ffast-math is refused. -fno-math-errno and -fno-trapping-math change no result: they only let
# loops with sqrt and comparisons vectorise.
accepts = $(shell echo 'int main() { return 0; }' | \
    $(CXX) $(1) -x c++ - -o /dev/null 2>/dev/null && echo yes)
NATIVE := $(if $(call accepts,-march=native),-march=native,-mcpu=native)
BREW_OMP := -Xpreprocessor -fopenmp \
            -I/opt/homebrew/opt/libomp/include -L/opt/homebrew/opt/libomp/lib -lomp
OPENMP := $(if $(call accepts,-fopenmp),-fopenmp,$(if $(call accepts,$(BREW_OMP)),$(BREW_OMP)))
OPTIMIZE ?= -O3
CXXFLAGS = -std=c++17 $(OPTIMIZE) $(NATIVE) -ffp-contract=off -fno-math-errno -fno-trapping-math \
           -Wall -Wextra $(or $(OPENMP),-Wno-unknown-pragmas) $(EXTRA)
COMPILE = $(NEED_CXX)$(CXX) $(CXXFLAGS) -MMD -MP -I.

# Objects and test programs go to $(BUILD), the programs to $(BIN).
BUILD ?= build
BIN ?= .
TESTS = test_numerics test_gguf test_flags test_tokenizer test_dataloader test_layers test_model \
        test_quants test_runtime test_speculate
TEST_PROGRAMS = $(TESTS:%=$(BUILD)/%)
TEST_SCRIPTS = test_data test_corpora test_infer test_chat test_draft test_quantize test_trainer \
               test_safety test_hf test_llama test_bundle
# The emulator is tried on Linux only; `make test EMU=` leaves out its own tests, and those of
# train_gpt2.cu under it: a program, the order of threads and blocks in which it runs, and what
# cuBLASLt refuses on the way. With EMU_TRAINER=./train_gpt2emu, test_trainer looks at the CUDA
# trainer too, from outside, which takes a minute or two.
EMU ?= $(filter Linux,$(shell uname -s))
ifneq ($(EMU),)
EMU_RUNS = $(foreach order,1 2 3 4 5,$(foreach form,fp32 bf16 fp16,layers_$(form):$(order))) \
           layers_sm90:1 layers_sm90:2:epilogues layers_sm90:3:matmul \
           model_fp32:1 model_bf16:1 model_fp16:1
TEST_PROGRAMS += $(patsubst %:1,$(BUILD)/test_%,$(filter %:1,$(EMU_RUNS))) \
                 $(EMU_FORMS:%=$(BUILD)/train_%) $(BUILD)/gpu_layers_sm90 $(EMU_TRAINER)
TEST_SCRIPTS += test_emu test_backends test_gpu_check $(EMU_TRAINER:%=test_trainer:%)
endif

# ---- programs ------------------------------------------------------------------------------------
.PHONY: all help demo demo-emu ladder trim test test-torch test-bits compare bench test-mutants \
        sanitize fuzz clean
all: $(BIN)/train_gpt2 $(BIN)/infer
	@echo "built $(BIN)/train_gpt2 and $(BIN)/infer; next: make demo"

help:
	@echo "make                build ./train_gpt2 and ./infer"
	@echo "make runtime        what \`infer bundle\` packs with a model into one file"
	@echo "make train_gpt2cu   the trainer for NVIDIA GPUs; PRECISION=bf16, fp16, fp32; needs nvcc"
	@echo "make emu            the same CUDA code for the CPU: ./train_gpt2emu," \
	    "no GPU and no CUDA Toolkit"
	@echo "make demo           train a small GPT and let it tell a tale; says first how long it takes"
	@echo "make demo-emu       ten steps of it by the CUDA kernels on the CPU, loss beside loss"
	@echo "make ladder         the matrix product from three loops to matmul.h, with each speed"
	@echo "make trim           what forgetting the middle of a text costs: MODEL=, TEXT="
	@echo "make test           build and run the test suite (no network, no packages)"
	@echo "make test-torch     the tests' golden values, and gradients and attention, by PyTorch"
	@echo "make test-bits      many compilers, processors and threads: the same model, bit for bit"
	@echo "make compare        train on tinyshakespeare beside PyTorch, and compare every loss"
	@echo "make bench          the CPU trainer and infer beside their peers: a table, a picture"
	@echo "make test-mutants   plant known bugs, and see that the tests catch every one"
	@echo "make sanitize       the test suite under the address and undefined behaviour sanitizers"
	@echo "make fuzz           damage what is read from outside, FUZZ_RUNS=100000 times for each kind"
	@echo "make clean          remove what was built (runs/ and data stay)"
	@echo ""
	@echo "Settings: CXX=clang++, PYTHON=python3.12, NATIVE=-march=haswell, EXTRA=-g, ARCH=sm_90"

$(BIN)/train_gpt2: $(BUILD)/train_gpt2.o
	$(CXX) $(CXXFLAGS) $< -o $@

$(BIN)/infer: $(BUILD)/infer.o
	$(CXX) $(CXXFLAGS) $< -o $@

$(BUILD)/%.o: %.cpp Makefile | $(BUILD)
	$(COMPILE) -c $< -o $@

$(BUILD):
	mkdir -p $@

# ---- the runtime that bundles carry --------------------------------------------------------------
# infer, static and in several forms, for any Linux machine of $(CXX)'s kind: launch.cpp tells how.
# For 64-bit Arm: make runtime CXX=aarch64-linux-gnu-g++. First each form becomes one object, whose
# inline functions no longer stand in groups that the linker may replace by another object's; then
# all names but its main's become its own.
MACHINE := $(firstword $(subst -, ,$(shell $(CXX) -dumpmachine 2>/dev/null)))
FORMS_x86_64 = avx2 avx512
FORMS_aarch64 = neon
FLAGS_avx2 = -march=x86-64-v3
FLAGS_avx512 = -march=x86-64-v4 -mavx512vnni
FLAGS_neon = -march=armv8-a
FLAGS_launch =
FORMS = $(FORMS_$(MACHINE):%=$(BUILD)/$(MACHINE)_%.o)
RUNTIME = $(BIN)/infer-$(MACHINE)
NO_UNIQUE = $(if $(call accepts,-fno-gnu-unique),-fno-gnu-unique)
OBJCOPY = $(shell $(CXX) -print-prog-name=objcopy)
$(BUILD)/$(MACHINE)_%.o: NATIVE = $(FLAGS_$*)

.PHONY: runtime
runtime: $(RUNTIME)
$(RUNTIME): $(BUILD)/$(MACHINE)_launch.o $(FORMS)
	$(CXX) -static -s -Wl,--wrap=dlopen $(OPENMP) $(EXTRA) $^ -o $@

$(BUILD)/$(MACHINE)_launch.o: launch.cpp Makefile | $(BUILD)
	$(COMPILE) -c $< -o $@

$(FORMS): $(BUILD)/$(MACHINE)_%.o: infer.cpp Makefile | $(BUILD)
	$(COMPILE) $(NO_UNIQUE) -MT $@ -c $< -o $@.all
	$(CXX) -r -nostdlib -Wl,--force-group-allocation $@.all -o $@
	$(OBJCOPY) --redefine-sym main=main_$* --keep-global-symbol=main_$* \
	    --rename-section .init_array=init_$* $@

# ---- CUDA ----------------------------------------------------------------------------------------
# With a GPU, its architecture; else those from a free T4 to Hopper in one file, and PTX, which the
# driver of a later GPU compiles when the program starts.
# float16 is for GPUs before sm_80, whose tensor cores know no bfloat16.
PRECISION ?= $(if $(filter sm_5% sm_6% sm_7%,$(ARCH)),fp16,bf16)
PRECISION_bf16 = -DLEGIBLE_BF16
PRECISION_fp16 = -DLEGIBLE_FP16
PRECISION_fp32 =
PRECISIONS = $(patsubst PRECISION_%,%,$(filter PRECISION_%,$(.VARIABLES)))
ARCH ?= $(addprefix sm_,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader \
    2>/dev/null | head -1 | tr -d .))
FAT = $(if $(filter-out bf16,$(PRECISION)),75) 80 86 89 90
GENCODE = $(if $(ARCH),-arch=$(ARCH),$(foreach a,$(FAT),-gencode arch=compute_$(a),code=sm_$(a)) \
    -gencode arch=compute_90,code=compute_90)
NVFLAGS = $(if $(filter $(PRECISION),$(PRECISIONS)),,$(error PRECISION=$(PRECISION): expected one \
          of $(sort $(PRECISIONS))))-std=c++17 -O3 $(GENCODE) $(PRECISION_$(PRECISION)) \
          -Xcompiler -Wall,-Wextra,-fopenmp -I.

$(BIN)/train_gpt2cu: train_gpt2.cu $(wildcard *.h) Makefile
	$(NEED_NVCC)$(NVCC) $(NVFLAGS) $< -o $@ -lcublasLt

# What dev/gpu_check.sh compiles with.
.PHONY: nvflags
nvflags:
	@echo '$(NVFLAGS)'

# The same file on the CPU: dev/emu/emucc compiles CUDA C++ with $(CXX). Training uses the fast
# form, without checks.
EMU_OPTIMIZE ?= -O2
.PHONY: emu
emu: $(BIN)/train_gpt2emu
EMUCC = $(NEED_PYTHON)$(NEED_CXX)EMU_BUILD=$(BUILD)/emu CXX="$(CXX)" \
        "$(PYTHON)" dev/emu/emucc -std=c++17 $(EMU_OPTIMIZE) -I.
EMU_FILES = $(wildcard dev/emu/* dev/emu/include/*) $(wildcard *.h) Makefile

$(BIN)/train_gpt2emu: train_gpt2.cu $(EMU_FILES) | $(BUILD)
	EMU_CHECK=0 $(EMUCC) $< -o $@

# The tests use the checked form, of four programs: cuBLASLt's GELU epilogues are used from sm_90
# on, and in 16 bits. The tests' own code needs no checks: device memory is closed to it.
EMU_FORMS = fp32 bf16 fp16 sm90
EMU_FLAGS_fp32 = -arch=sm_75
EMU_FLAGS_bf16 = -arch=sm_80 $(PRECISION_bf16)
EMU_FLAGS_fp16 = -arch=sm_75 $(PRECISION_fp16)
EMU_FLAGS_sm90 = -arch=sm_90 $(PRECISION_bf16)

$(EMU_FORMS:%=$(BUILD)/emu_%.o): $(BUILD)/emu_%.o: train_gpt2.cu $(EMU_FILES) | $(BUILD)
	$(EMUCC) $(EMU_FLAGS_$*) -c $< -o $@

define EMU_TEST
$(BUILD)/test_$(1)_$(2).o: tests/test_$(1).cpp tests/check.h $(EMU_FILES) | $(BUILD)
	EMU_CHECK=0 $(EMUCC) $(EMU_FLAGS_$(2)) -c $$< -o $$@
$(BUILD)/test_$(1)_$(2): $(BUILD)/test_$(1)_$(2).o $(BUILD)/emu_$(2).o
	$(EMUCC) $$^ -o $$@
endef
$(foreach t,layers model,$(foreach f,$(EMU_FORMS),$(eval $(call EMU_TEST,$t,$f))))

# A program of dev/gpu_check.sh's.
$(BUILD)/gpu_layers_sm90.o: dev/bench/gpu_layers.cpp $(EMU_FILES) | $(BUILD)
	EMU_CHECK=0 $(EMUCC) $(EMU_FLAGS_sm90) -c $< -o $@
$(BUILD)/gpu_layers_sm90: $(BUILD)/gpu_layers_sm90.o $(BUILD)/emu_sm90.o
	$(EMUCC) $^ -o $@

$(EMU_FORMS:%=$(BUILD)/train_%): $(BUILD)/train_%: $(BUILD)/emu_%.o
	$(EMUCC) $< -o $@

# ---- the demo ------------------------------------------------------------------------------------
demo: all
	$(NEED_PYTHON)@PYTHON="$(PYTHON)" sh dev/demo.sh

demo-emu: all emu
	$(NEED_PYTHON)@PYTHON="$(PYTHON)" sh dev/demo.sh emu

# ---- the ladder (doc/matmul.md) ------------------------------------------------------------------
LADDER = $(basename $(notdir $(wildcard dev/matmul/*.cpp)))
$(LADDER:%=$(BUILD)/ladder_%.o): $(BUILD)/ladder_%.o: dev/matmul/%.cpp Makefile | $(BUILD)
	$(COMPILE) -c $< -o $@

$(BUILD)/ladder: $(LADDER:%=$(BUILD)/ladder_%.o)
	$(CXX) $(CXXFLAGS) $^ -o $@

ladder: $(BUILD)/ladder
	$<

# What a trimmed cache costs (doc/runtime.md).
WINDOWS ?= 40
$(BUILD)/trim.o: dev/trim.cpp Makefile | $(BUILD)
	$(COMPILE) -c $< -o $@

$(BUILD)/trim: $(BUILD)/trim.o
	$(CXX) $(CXXFLAGS) $^ -o $@

trim: $(BUILD)/trim
	$< "$(MODEL)" "$(TEXT)" $(WINDOWS)

# ---- tests ---------------------------------------------------------------------------------------
$(BUILD)/test_%.o: tests/test_%.cpp Makefile | $(BUILD)
	$(COMPILE) -c $< -o $@

$(BUILD)/test_%: $(BUILD)/test_%.o
	$(CXX) $(CXXFLAGS) $^ -o $@

# These test the trainer's own object; its main() gives way to theirs (trainer.h).
$(BUILD)/test_layers $(BUILD)/test_model: $(BUILD)/train_gpt2.o

$(BUILD)/CTestTestfile.cmake: tests/ctest.cmake | $(BUILD)
	cp $< $@

# Where a static program cannot be built, test_bundle says so.
STATIC = $(if $(FORMS),$(call accepts,-static $(OPENMP) $(EXTRA)))
test: $(BIN)/train_gpt2 $(BIN)/infer $(TEST_PROGRAMS) $(BUILD)/CTestTestfile.cmake \
        $(if $(filter test_bundle,$(TEST_SCRIPTS)),$(if $(STATIC),$(RUNTIME)))
	$(NEED_PYTHON)$(NEED_CTEST)export ROOT="$$PWD" PYTHON="$(PYTHON)" TESTS="$(TESTS)" \
	    EMU_RUNS="$(EMU_RUNS)" TEST_SCRIPTS="$(TEST_SCRIPTS)" INFER=$(BIN)/infer \
	    TRAIN=$(BIN)/train_gpt2 TRAIN_CUDA=$(BUILD)/train \
	    GPU_LAYERS=$(BUILD)/gpu_layers_sm90; \
	cd $(BUILD) && BUILD="$$PWD" $(CTEST) --output-on-failure \
	    -j $$(($$(getconf _NPROCESSORS_ONLN) + 1))

test-torch: $(BIN)/train_gpt2
	$(NEED_PYTHON)"$(PYTHON)" tests/reference.py --check
	TRAIN=$(BIN)/train_gpt2 CXX="$(CXX)" "$(PYTHON)" tests/test_gpu_torch.py

# gcc, clang; AVX2, AVX-512, emulated Arm: the script makes each build in build/bits.
test-bits:
	$(NEED_PYTHON)"$(PYTHON)" tests/bits.py

# tinyshakespeare, every loss beside PyTorch's. SHAKESPEARE=FILE: a copy, so no download.
STEPS ?= 500
compare: $(BIN)/train_gpt2
	$(NEED_PYTHON)"$(PYTHON)" data/tinyshakespeare.py $(if $(SHAKESPEARE),--from "$(SHAKESPEARE)") \
	    --out data/tinyshakespeare
	rm -rf build/compare
	"$(PYTHON)" tests/compare_training.py --data data/tinyshakespeare --out build/compare \
	    --steps $(STEPS)

# Tables and a picture for doc/performance.md. 2 GB in a temporary folder; 15 minutes or so.
ROUNDS ?= 5
SVG ?= build/bench.svg
bench: all
	$(NEED_PYTHON)@"$(PYTHON)" dev/bench/cpu.py --train $(BIN)/train_gpt2 --infer $(BIN)/infer \
	    --rounds $(ROUNDS) --svg "$(SVG)" $(if $(THREADS),--threads $(THREADS)) \
	    --works "$(WORKS)" --llmc "$(LLMC)" --llama-bench "$(LLAMA_BENCH)"

# Clang brings libFuzzer, which looks for inputs that reach new code; any compiler can do without.
# In the folder build/fuzz-corpus it keeps what it found.
FUZZ_RUNS ?= 100000
FUZZ_TARGETS = gguf tokenizer text shard
FUZZ_FLAGS = -std=c++17 -O1 -g -Wall -Wextra -Wno-unknown-pragmas -ffp-contract=off $(NATIVE) -I. \
             -fsanitize=address,undefined -fno-sanitize-recover=all
LIBFUZZER = $(shell echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' \
    | $(CXX) -fsanitize=fuzzer -x c++ - -o /dev/null 2>/dev/null && echo yes)

$(BUILD)/fuzz: tests/fuzz.cpp infer.cpp $(wildcard *.h) Makefile | $(BUILD)
	$(NEED_CXX)$(CXX) $(FUZZ_FLAGS) $(if $(LIBFUZZER),-DLIBFUZZER -fsanitize=fuzzer) $(EXTRA) \
	    $< -o $@

RUN_FUZZ = $< $$t -n $(FUZZ_RUNS)
RUN_LIBFUZZER = mkdir -p $(BUILD)/fuzz-corpus/$$t && \
    FUZZ_TARGET=$$t $< -detect_leaks=0 -runs=$(FUZZ_RUNS) -max_len=8192 -timeout=20 \
    -close_fd_mask=1 -verbosity=0 -print_final_stats=1 -artifact_prefix=$(BUILD)/ \
    $(BUILD)/fuzz-corpus/$$t tests/fuzz/$$t
fuzz: $(BUILD)/fuzz
	@for t in $(FUZZ_TARGETS); do $(if $(LIBFUZZER),$(RUN_LIBFUZZER),$(RUN_FUZZ)) || exit 1; done

test-mutants:
	$(NEED_PYTHON)$(NEED_CXX)"$(PYTHON)" tests/mutants.py

sanitize:
	$(MAKE) test EMU= BUILD=build/sanitize BIN=build/sanitize OPTIMIZE=-O1 \
	    EXTRA="-g -fsanitize=address,undefined -fno-sanitize-recover=all"

clean:
	rm -rf build train_gpt2 infer infer-* train_gpt2cu train_gpt2emu

-include $(wildcard $(BUILD)/*.d)
.SECONDARY:
