#!/bin/sh
# gpu_check.sh - everything that needs a GPU, in one command of less than eight minutes (16 cores):
#
#     dev/gpu_check.sh [FOLDER]
#
# Its stages, each a function below that says what it asks and what the answer should be:
#
#     build      the trainer in each precision, its tests and the bench, for this GPU
#     agree      with PyTorch: loss and every gradient. With itself: again, resumed, in slices
#     tests      the layer and model tests on the GPU
#     speed      layers, products, attention and training, beside the GPU's ceilings and PyTorch
#     kernels    the trainer's kernels one by one, by hardware counters (ncu)
#     sanitize   compute-sanitizer's four tools, for as long as there is time
#
# A check that fails is named, and the rest goes on: exit code 1 at the end. What is slow comes
# last, and FOLDER (default: build/gpu) holds report.md, gpu_check.json and logs.txt after every
# stage, so that a run that is cut short has said what it knew. report.md ends with a section for
# doc/performance.md. What is built is kept. Needs nvcc and make; PyTorch, ncu and
# compute-sanitizer are used where they are.
#
# Settings, in the environment:
#     STAGES        some of the stages: what an earlier run built and measured stays
#     FORMS         precisions, "bf16 fp32 fp16" ("fp16 fp32" before sm_80); all is asked of the
#                   first
#     MODEL, BATCH  what is trained: gpt2, 32 sequences of 1024
#     BUDGET, WORK  460 seconds in all; build/gpu_work
#     ARCH, COMMIT, NVCC, PYTHON, NCU, SANITIZER   where what is found is not what is meant
#     REHEARSE=1    all of it with the emulator for a GPU and a tiny model, to try this script
#
# shellcheck disable=SC2086   # several flags in one variable are several words
set -u
cd "$(dirname "$0")/.." || exit 1
PATH=$PATH:/usr/local/cuda/bin
ALL="build agree tests speed kernels sanitize"
OUT=${1:-build/gpu} WORK=${WORK:-build/gpu_work} BIN=$WORK/bin
STAGES=${STAGES:-$ALL} STARTED=$(date +%s)
PYTHON=${PYTHON:-python3} NCU=${NCU:-ncu} SANITIZER=${SANITIZER:-compute-sanitizer}
if [ -n "${REHEARSE:-}" ]; then
    NVCC=${NVCC:-dev/emu/emucc} GPU="the emulator" DRIVER=none ARCH=sm_90 PATIENCE=10
    export EMU_CHECK=0
    MODEL=tiny BATCH=2 SEQ=32 LARGE=4 CEILINGS=128 DEVICE=cpu BUDGET=3600
    LAYERS="tiny 2 128 2 2 32" ROUNDS="--rounds 1 --steps 2 --warmup 1" FEW=$ROUNDS
    WAYS="eager autocast flash,eager pure cudnn" WAYS_FP32="eager pure flash"
    ATTENTION="--channels 128 --rounds 1"
else
    NVCC=${NVCC:-nvcc} PATIENCE=1 BUDGET=${BUDGET:-460} DEVICE=cuda CEILINGS=8192
    MODEL=${MODEL:-gpt2} BATCH=${BATCH:-32} SEQ=1024 LARGE=64
    LAYERS="gpt2 12 768 12 $BATCH 1024"   # L C NH B T: of 124M, whatever MODEL is
    ROUNDS="--rounds 2 --steps 25" FEW="--rounds 1 --steps 8 --warmup 2"
    WAYS="eager autocast flash,compiled autocast flash,compiled pure flash"
    WAYS="$WAYS,compiled autocast cudnn,compiled pure cudnn,eager pure flash"
    WAYS_FP32="compiled pure efficient" ATTENTION=
    command -v nvidia-smi > /dev/null ||
        { echo "nvidia-smi was not found: is there a GPU?" >&2; exit 1; }
    ask() { nvidia-smi --query-gpu="$1" --format=csv,noheader | head -1; }
    GPU=$(ask name) DRIVER=$(ask driver_version) ARCH=${ARCH:-sm_$(ask compute_cap | tr -d .)}
fi
for stage in $STAGES; do
    case " $ALL " in
        *" $stage "*) ;;
        *) echo "STAGES: \"$stage\": expected some of $ALL" >&2; exit 1 ;;
    esac
done
for program in "$NVCC" make "$PYTHON"; do
    command -v "$program" > /dev/null ||
        { echo "$program was not found: install it (NVCC: the CUDA Toolkit)" >&2; exit 1; }
done
COMMIT=${COMMIT:-$(git describe --always --dirty 2> /dev/null || echo unknown)}
CUDA=$("$NVCC" --version 2> /dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p' | head -1)
TORCH=$("$PYTHON" -c 'import torch; print(torch.__version__)' 2> /dev/null || echo none)
command -v "$SANITIZER" > /dev/null ||
    SANITIZER=$(dirname "$(readlink -f "$(command -v "$NVCC")")")/compute-sanitizer
# With nothing of before, least of all a program that now does not compile.
case $STAGES in *build*) rm -rf "$WORK/logs" "$BIN" "$WORK/checks.jsonl" "$WORK/ncu.csv" ;; esac
mkdir -p "$WORK/logs" "$BIN" "$OUT" || exit 1
TORCHINDUCTOR_CACHE_DIR=$(cd "$WORK" && pwd)/inductor   # what PyTorch compiles is compiled once
export TORCHINDUCTOR_CACHE_DIR
# What the trainer would set before it starts itself once more (threads.h), of which ncu and
# compute-sanitizer might lose sight.
export GOMP_SPINCOUNT=2000

# ---- what every stage uses -----------------------------------------------------------------------

# stage NAME SECONDS: what follows, and the most that each of its checks may take.
stage() {
    STAGE=$1 LIMIT=$(($2 * PATIENCE)) PIDS=
}

# verdict CHECK VERDICT SECONDS: notes it.
verdict() {
    echo "$STAGE: $1: $2 ($3 s)"
    printf '{"stage":"%s","check":"%s","verdict":"%s","seconds":%d}\n' "$STAGE" "$@" \
        >> "$WORK/checks.jsonl"
}

# check NAME COMMAND...: runs it, keeps its output in logs/NAME.txt, and notes what became of it:
# passed, failed, unfinished (its time or BUDGET was over); or refused or absent, which is no fault
# of ours: a driver or a container does not let a tool in, or it is not there (77: it says what).
check() {
    name=$1 began=$(date +%s) found=passed
    shift
    left=$((STARTED + BUDGET - began))
    [ $left -gt $LIMIT ] && left=$LIMIT
    [ $left -lt 1 ] && left=1
    timeout -k 5 $left "$@" > "$WORK/logs/$name.txt" 2>&1
    code=$?
    if [ $code -ne 0 ]; then
        found=failed
        refusals='device not supported|not supported on this|insufficient permission'
        refusals="$refusals|ERR_NVGPUCTRPERM|LibraryNotLoaded|unable to (initialize|attach)"
        grep -qiE "$refusals" "$WORK/logs/$name.txt" && found=refused
        case $code in
            77) found=absent ;;
            124 | 137) found=unfinished ;;
        esac
        command -v "$1" > /dev/null || found=absent
    fi
    verdict "$name" $found $(($(date +%s) - began))
    [ $found != failed ] || tail -5 "$WORK/logs/$name.txt"
}

# The same beside others; settle waits for all of the stage.
also() {
    check "$@" &
    PIDS="$PIDS $!"
}

settle() {
    for pid in $PIDS; do wait "$pid"; done
    PIDS=
}

# Writes what is known so far; false if something failed.
report() {
    settle
    "$PYTHON" dev/bench/gpu_report.py "$WORK" "$OUT" "date=$(date -u +%F)" "commit=$COMMIT" \
        "GPU=$GPU" "arch=$ARCH" "driver=$DRIVER" "nvcc=${CUDA:-none}" "PyTorch=$TORCH" \
        "seconds=$(($(date +%s) - STARTED))"
}

# agree QUESTION FORM [FLAGS]; see dev/bench/gpu_agree.py.
agree() {
    question=$1 form=$2
    shift 2
    also "agree_${question}_$form" "$PYTHON" dev/bench/gpu_agree.py "$question" --work "$WORK" \
        --trainer "$BIN/train_gpt2cu_$form" --dtype "$form" --model "$MODEL" --seq "$SEQ" \
        --device "$DEVICE" "$@"
}

# training CHECK FORM WAYS FLAGS: see dev/bench/gpu_torch.py.
training() {
    name=$1 form=$2 ways=$3
    shift 3
    check "$name" "$PYTHON" dev/bench/gpu_torch.py --work "$WORK" --dtype "$form" \
        --ways "$ways" --model "$MODEL" --batch "$BATCH" --seq "$SEQ" --device "$DEVICE" "$@"
}

# ---- the stages ----------------------------------------------------------------------------------

# Which precisions there are the Makefile knows. PyTorch begins to compile what `speed` will time,
# and is waited for only then.
stage_build() {
    stage build 240
    programs="tests/test_layers tests/test_model dev/bench/gpu_layers dev/bench/gpu_library"
    also data "$PYTHON" dev/bench/gpu_torch.py --data "$WORK/data"
    for form in $FORMS; do
        flags="$(make -s nvflags PRECISION="$form" ARCH="$ARCH") -Xcompiler -fPIC"
        also "compile_train_$form" "$NVCC" $flags -c train_gpt2.cu -o "$BIN/train_$form.o"
        for source in $programs; do
            name=$(basename "$source")_$form
            also "compile_$name" "$NVCC" $flags -Xcompiler -march=native,-ffp-contract=off \
                -c "$source.cpp" -o "$BIN/$name.o"
        done
    done
    settle
    for form in $FORMS; do
        linked=$BIN/train_$form.o
        also "link_train_$form" "$NVCC" "-arch=$ARCH" -Xcompiler -fopenmp "$linked" -lcublasLt \
            -o "$BIN/train_gpt2cu_$form"
        for source in $programs; do
            name=$(basename "$source")_$form
            case $name in
                gpu_library*) also "link_$name" "$NVCC" "-arch=$ARCH" -shared -Xcompiler -fopenmp \
                    "$BIN/$name.o" "$linked" -lcublasLt -o "$BIN/$name.so" ;;
                *) also "link_$name" "$NVCC" "-arch=$ARCH" -Xcompiler -fopenmp "$BIN/$name.o" \
                    "$linked" -lcublasLt -o "$BIN/$name" ;;
            esac
        done
    done
    report
    stage warm_up 150
    training warm_up_torch "$FIRST" "$WAYS" --rounds 1 --steps 1 --warmup 0 &
}

# Is it right? Each answer is yes: dev/bench/gpu_agree.py says within what. Nothing is timed, so all
# are asked at once; together they take up to 80 GB of the GPU.
stage_agree() {
    stage agree 120
    for form in $FORMS; do
        agree gradients "$form" --batch 4
    done
    agree repeat "$FIRST" --batch "$BATCH"
    agree slices "$FIRST" --batch "$LARGE"
    report
}

# Does every layer, and the whole model, agree with PyTorch's golden values? All must pass.
stage_tests() {
    stage tests 60
    for form in $FORMS; do
        for test in test_layers test_model; do
            also "${test}_$form" "$BIN/${test}_$form"
        done
    done
    report
}

# How fast? Alone on the GPU, one after the other. Layers that move more than 100 MB should reach
# 70% of the copy or more; attention should be near PyTorch's; training near torch.compile. Whether
# another algorithm than cuBLASLt's first is worth having for some product: the report says so.
stage_speed() {
    wait   # for PyTorch's compiler
    stage speed 60
    for question in layers products; do
        check "${question}_$FIRST" "$BIN/gpu_layers_$FIRST" $question $LAYERS $CEILINGS
    done
    for form in $FORMS; do
        check "attention_$form" "$PYTHON" dev/bench/gpu_attention.py "$BIN/gpu_library_$form.so" \
            --device "$DEVICE" --batch "$BATCH" --seq "$SEQ" $ATTENTION
    done
    report
    stage speed 200
    for form in $FORMS; do
        case $form in
            fp32) ways=$WAYS_FP32 rounds=$FEW ;;   # an eighth as fast
            "$FIRST") ways=$WAYS rounds=$ROUNDS ;;
            *) ways="eager pure flash" rounds=$FEW ;;
        esac
        training "training_$form" "$form" "$ways" --trainer "$BIN/train_gpt2cu_$form" $rounds
        report
    done
}

# What does each kernel do, by the hardware's own counters? Two steps of one block of 124M: nearly
# every kernel there is, without waiting for twelve times the same. No bank conflicts in attention.
stage_kernels() {
    stage kernels 60
    rm -rf "$WORK/one_block" "$WORK/ncu.csv"
    check ncu "$NCU" --clock-control none --csv --page raw --print-units base \
        --print-kernel-base function --log-file "$WORK/ncu.csv" \
        --metrics "$("$PYTHON" dev/bench/gpu_report.py --ncu-metrics)" \
        "$BIN/train_gpt2cu_$FIRST" --train "$WORK/data/train_*.bin" \
        --tokenizer "$WORK/data/tokenizer.gguf" --layers 1 --heads 12 --channels 768 \
        --context "$SEQ" --batch "$BATCH" --steps 2 --save-minutes 0 --out "$WORK/one_block"
    report
}

# Does any thread read or write where it must not, race, read what nobody wrote, or miss a barrier?
# Heads of 64 and of 128, two tiles of attention long; then every layer's odd sizes. device_alloc
# leaves memory as it was, so that initcheck knows what nobody wrote.
stage_sanitize() {
    stage sanitize 90
    tools="memcheck racecheck initcheck synccheck"
    for tool in $tools; do
        for heads in 2 1; do
            rm -rf "$WORK/${tool}_$heads"
            also "${tool}_heads_$((128 / heads))" "$SANITIZER" --tool "$tool" --error-exitcode 9 \
                "$BIN/train_gpt2cu_$FIRST" --train "$WORK/data/train_*.bin" \
                --tokenizer "$WORK/data/tokenizer.gguf" --layers 2 --heads $heads --channels 128 \
                --context 128 --batch 2 --steps 2 --save-minutes 0 --out "$WORK/${tool}_$heads"
        done
    done
    report
    for tool in $tools; do
        also "${tool}_layers" "$SANITIZER" --tool "$tool" --error-exitcode 9 \
            "$BIN/test_layers_$FIRST"
    done
    report
}

echo "$GPU, $ARCH, driver $DRIVER, nvcc ${CUDA:-none}, PyTorch $TORCH, commit $COMMIT"
case $ARCH in
    sm_[567]?) FORMS=${FORMS:-fp16 fp32} ;;   # no bfloat16 there
    *) FORMS=${FORMS:-bf16 fp32 fp16} ;;
esac
FIRST=${FORMS%% *}   # of which all is asked
for stage in $STAGES; do
    "stage_$stage"
done
wait
report || { cat "$OUT/report.md"; echo "something failed: see $OUT/logs.txt"; exit 1; }
cat "$OUT/report.md"
echo "all passed: $OUT/report.md"
