#!/bin/sh
# gpu_check.sh - everything that needs a GPU, in one command of less than eight minutes (16 cores):
#
#     dev/gpu_check.sh [FOLDER]
#
#   1. build        train_gpt2cu, the tests and the bench for this GPU, in bfloat16 and float32
#   2. speed        each layer's time as a part of what memory or arithmetic allows
#                   (dev/bench/gpu_layers.cpp), and training of GPT-2 124M and 350M beside PyTorch,
#                   eager and compiled (dev/bench/gpu_torch.py)
#   3. tests        the layer and model tests on the GPU
#   4. sanitizers   compute-sanitizer (memcheck, racecheck, initcheck) on two training steps and on
#                   the layer tests, for as long as there is time
#
# What is slow comes last, and FOLDER (default: build/gpu) holds report.md, gpu_check.json and
# logs.txt after every stage: a run that is cut short has said what it knew. What is built is kept
# in build/gpu_work. Needs nvcc; PyTorch and compute-sanitizer are used where they are.
# Exit code 1 if a build, a test or a sanitizer failed.
#
# Settings: ARCH=sm_90  NVCC=...  PYTHON=...  SANITIZER=...  BUDGET=460 (seconds in all)
#           BATCH=32 (sequences of 1024)  MODELS="gpt2 gpt2-medium"
# REHEARSE=1: all of it with the emulator for a GPU and a tiny model, to try this script.
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${1:-build/gpu} WORK=build/gpu_work STARTED=$(date +%s)
PYTHON=${PYTHON:-python3}
if [ -n "${REHEARSE:-}" ]; then
    NVCC=dev/emu/emucc GPU="the emulator" ARCH=sm_90 PATIENCE=10
    export EMU_CHECK=0
    MODELS=tiny BATCH=1 LAYERS="tiny 64 2 1 32 128" BUDGET=3600 TRAINING="--seq 32"
else
    NVCC=${NVCC:-nvcc} PATIENCE=1 BUDGET=${BUDGET:-460} BATCH=${BATCH:-32} TRAINING=
    MODELS=${MODELS:-gpt2 gpt2-medium} LAYERS="gpt2 768 12 $BATCH 1024 8192"
    command -v nvidia-smi > /dev/null ||
        { echo "nvidia-smi was not found: is there a GPU?" >&2; exit 1; }
    GPU=$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total \
        --format=csv,noheader | head -1)
    ARCH=${ARCH:-sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 |
        tr -d .)}
fi
command -v "$NVCC" > /dev/null ||
    { echo "$NVCC was not found: install the CUDA Toolkit, or set NVCC" >&2; exit 1; }
SANITIZER=${SANITIZER:-compute-sanitizer}
command -v "$SANITIZER" > /dev/null ||
    SANITIZER=$(dirname "$(readlink -f "$(command -v "$NVCC")")")/compute-sanitizer
rm -rf "$WORK/logs" "$WORK/checks.jsonl" && mkdir -p "$WORK/logs" "$OUT" || exit 1

# stage NAME SECONDS: what follows, and the most that each of its checks may take.
stage() {
    STAGE=$1 LIMIT=$(($2 * PATIENCE))
}

# check NAME COMMAND...: runs it, keeps its output in logs/NAME.txt, and notes what became of it:
# passed, failed, unfinished (its time or BUDGET was over); or refused or absent, which is no fault
# of ours. Several may run at a time, in the background.
check() {
    name=$1 began=$(date +%s)
    shift
    left=$((STARTED + BUDGET - began))
    [ $left -gt $LIMIT ] && left=$LIMIT
    [ $left -lt 1 ] && left=1
    timeout -k 5 $left "$@" > "$WORK/logs/$name.txt" 2>&1
    code=$? verdict=passed
    if [ $code -ne 0 ]; then
        verdict=failed
        # A driver or a container that does not let a tool in is no fault of the program.
        refusals='device not supported|not supported on this|insufficient permission'
        grep -qiE "$refusals|unable to (initialize|attach)" "$WORK/logs/$name.txt" &&
            verdict=refused
        command -v "$1" > /dev/null || verdict=absent
        case $code in 124 | 137) verdict=unfinished ;; esac
    fi
    seconds=$(($(date +%s) - began))
    echo "$STAGE: $name: $verdict ($seconds s)"
    [ $verdict = failed ] && tail -5 "$WORK/logs/$name.txt"
    printf '{"stage":"%s","check":"%s","verdict":"%s","seconds":%d}\n' "$STAGE" "$name" $verdict \
        $seconds >> "$WORK/checks.jsonl"
}

# Waits for the stage's checks, and writes what is known so far.
report() {
    wait
    "$PYTHON" dev/bench/gpu_report.py "$WORK" "$OUT" "$GPU, $ARCH" $(($(date +%s) - STARTED))
}

echo "$GPU, $ARCH"
stage build 240
CU="$NVCC -std=c++17 -O3 -arch=$ARCH -I. -Xcompiler -fopenmp"
PROGRAMS="tests/test_layers tests/test_model dev/bench/gpu_layers"
for precision in bf16 fp32; do
    [ $precision = bf16 ] && FLAG=-DLEGIBLE_BF16 || FLAG=
    check compile_train_$precision $CU $FLAG -c train_gpt2.cu -o "$WORK/train_$precision.o" &
    for source in $PROGRAMS; do
        name=$(basename $source)_$precision
        check compile_$name $CU -Xcompiler -march=native,-ffp-contract=off $FLAG -c $source.cpp \
            -o "$WORK/$name.o" &
    done
done
check data "$PYTHON" dev/bench/gpu_torch.py --data "$WORK/data" &
wait
for precision in bf16 fp32; do
    check link_train_$precision $CU "$WORK/train_$precision.o" -o "$WORK/train_gpt2cu_$precision" \
        -lcublasLt &
    for source in $PROGRAMS; do
        name=$(basename $source)_$precision
        check link_$name $CU "$WORK/$name.o" "$WORK/train_$precision.o" -o "$WORK/$name" \
            -lcublasLt &
    done
done
report

stage speed 60
check layers "$WORK/gpu_layers_bf16" $LAYERS   # alone on the GPU, as all that is timed
report
stage speed 150
for model in $MODELS; do
    check training_$model "$PYTHON" dev/bench/gpu_torch.py --trainer "$WORK/train_gpt2cu_bf16" \
        --work "$WORK" --model $model --batch "$BATCH" $TRAINING
    report
done

stage tests 60
for precision in bf16 fp32; do
    for test in test_layers test_model; do
        check ${test}_$precision "$WORK/${test}_$precision" &
    done
done
report

stage sanitizers 90
for tool in memcheck racecheck initcheck; do
    rm -rf "$WORK/tiny_$tool"
    check ${tool}_training "$SANITIZER" --tool $tool --error-exitcode 9 \
        "$WORK/train_gpt2cu_bf16" --train "$WORK/data/train_*.bin" \
        --tokenizer "$WORK/data/tokenizer.gguf" --layers 2 --heads 2 --channels 64 --context 64 \
        --batch 2 --steps 2 --save-minutes 0 --out "$WORK/tiny_$tool" &
done
report
for tool in memcheck racecheck initcheck; do
    check ${tool}_layers "$SANITIZER" --tool $tool --error-exitcode 9 "$WORK/test_layers_bf16" &
done
report || { cat "$OUT/report.md"; echo "something failed: see $OUT/logs.txt"; exit 1; }
cat "$OUT/report.md"
echo "all passed: $OUT/report.md"
