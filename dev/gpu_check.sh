#!/bin/sh
# gpu_check.sh - everything that needs a GPU, in one command of less than ten minutes:
#
#     dev/gpu_check.sh [FOLDER]
#
#   1. builds train_gpt2cu and the tests for this GPU, in bfloat16 and float32
#   2. the layer and model tests on the GPU
#   3. compute-sanitizer (memcheck, racecheck, initcheck) on the layer tests and two training steps
#   4. each layer's time as a part of what memory or arithmetic allows (dev/bench/gpu_layers.cpp)
#   5. training of GPT-2 124M and 350M beside PyTorch, eager and compiled (dev/bench/gpu_torch.py)
#
# Writes FOLDER/report.md and FOLDER/gpu_check.json (default folder: build/gpu).
# Needs nvcc and a C++ compiler; PyTorch and compute-sanitizer are used where they are.
# Exit code 1 if a build, a test or a sanitizer failed.
#
# Settings: ARCH=sm_90  NVCC=...  CXX=...  PYTHON=...
#           BATCH=32 (sequences of 1024)  MODELS=gpt2,gpt2-medium
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${1:-build/gpu}
NVCC=${NVCC:-nvcc} CXX=${CXX:-g++} PYTHON=${PYTHON:-python3}
BATCH=${BATCH:-32} MODELS=${MODELS:-gpt2,gpt2-medium}
# need PROGRAM ADVICE
need() {
    command -v "$1" > /dev/null || { echo "$1 was not found: $2" >&2; exit 1; }
}
need "$NVCC" "install the CUDA Toolkit, or set NVCC"
need nvidia-smi "is there an NVIDIA GPU?"
CUDA=$(dirname "$(dirname "$(readlink -f "$(command -v "$NVCC")")")")
ARCH=${ARCH:-sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)}
mkdir -p "$OUT/logs" || exit 1
STARTED=$(date +%s)

# check NAME COMMAND...: runs it, keeps its output in logs/NAME.txt, and notes what became
# of it: passed, failed, unfinished; or refused or absent, which is no fault of ours.
check() {
    name=$1
    shift
    began=$(date +%s)
    timeout 120 "$@" > "$OUT/logs/$name.txt" 2>&1
    code=$? verdict=passed
    if [ $code -ne 0 ]; then
        verdict=failed
        # A driver or a container that does not let a tool in is no fault of the program.
        refusals='device not supported|not supported on this|insufficient permission'
        grep -qiE "$refusals|unable to (initialize|attach)" "$OUT/logs/$name.txt" && verdict=refused
        command -v "$1" > /dev/null || verdict=absent
        [ $code = 124 ] && verdict=unfinished   # in its 120 seconds
    fi
    seconds=$(($(date +%s) - began))
    echo "$name: $verdict ($seconds s)"
    case $verdict in passed | refused | absent) ok=0 ;; *) ok=1 ;; esac
    [ $ok = 1 ] && tail -5 "$OUT/logs/$name.txt"
    printf '{"check":"%s","verdict":"%s","seconds":%d}\n' "$name" $verdict $seconds \
        >> "$OUT/checks.jsonl"
    return $ok
}

# build bf16|fp32: the program, the tests, and the bench, in $OUT. FLAG is empty for fp32.
build() {
    FLAG=
    [ "$1" = bf16 ] && FLAG=-DLEGIBLE_BF16
    CU="$NVCC -std=c++17 -O3 -arch=$ARCH $FLAG -Xcompiler -fopenmp -I."
    CC="$CXX -std=c++17 -O2 -march=native -ffp-contract=off $FLAG -I. -I$CUDA/include"
    $CU -c train_gpt2.cu -o "$OUT/train_$1.o" &&
        $CU "$OUT/train_$1.o" -o "$OUT/train_gpt2cu_$1" -lcublasLt || return 1
    for test in tests/test_layers tests/test_model dev/bench/gpu_layers; do
        object=$OUT/$(basename $test)_$1
        $CC -c $test.cpp -o "$object.o" &&
            $CU "$object.o" "$OUT/train_$1.o" -o "$object" -lcublasLt || return 1
    done
}

# check starts programs, so a build is this script once more: gpu_check.sh FOLDER --build PRECISION
if [ "${2:-}" = --build ]; then
    build "$3"
    exit $?
fi

rm -f "$OUT"/*.jsonl
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader |
    head -1 > "$OUT/gpu.txt"
echo "$(cat "$OUT/gpu.txt"), $ARCH, $($NVCC --version | grep -o 'release [0-9.]*')"
FAILED=0
check build_bf16 sh dev/gpu_check.sh "$OUT" --build bf16 || FAILED=1
check build_fp32 sh dev/gpu_check.sh "$OUT" --build fp32 || FAILED=1
for precision in bf16 fp32; do
    for test in test_layers test_model; do
        check ${test}_$precision "$OUT/${test}_$precision" || FAILED=1
    done
done

"$PYTHON" dev/bench/gpu_torch.py --data "$OUT/data" || FAILED=1
SANITIZER=compute-sanitizer
command -v $SANITIZER > /dev/null || SANITIZER=$CUDA/bin/compute-sanitizer
for tool in memcheck racecheck initcheck; do
    check ${tool}_layers "$SANITIZER" --tool $tool --error-exitcode 9 "$OUT/test_layers_bf16" ||
        FAILED=1
    rm -rf "$OUT/tiny"
    check ${tool}_training "$SANITIZER" --tool $tool --error-exitcode 9 "$OUT/train_gpt2cu_bf16" \
        --train "$OUT/data/train_*.bin" --tokenizer "$OUT/data/tokenizer.gguf" \
        --layers 2 --heads 2 --channels 64 --context 64 --batch 2 --steps 2 --out "$OUT/tiny" ||
        FAILED=1
done

"$OUT/gpu_layers_bf16" gpt2 768 12 "$BATCH" 1024 > "$OUT/layers.jsonl" || FAILED=1
timeout 420 "$PYTHON" dev/bench/gpu_torch.py --trainer "$OUT/train_gpt2cu_bf16" --work "$OUT" \
    --models "$MODELS" --batch "$BATCH" > "$OUT/training.jsonl" || FAILED=1

"$PYTHON" - "$OUT" $(($(date +%s) - STARTED)) <<'END' || FAILED=1
import json, os, statistics, sys
out, seconds = sys.argv[1], int(sys.argv[2])
def lines(name):
    path = os.path.join(out, name)
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []
gpu = open(os.path.join(out, "gpu.txt")).read().strip()
checks, layers, training = lines("checks.jsonl"), lines("layers.jsonl"), lines("training.jsonl")
with open(os.path.join(out, "gpu_check.json"), "w") as f:
    json.dump({"gpu": gpu, "seconds": seconds, "checks": checks, "layers": layers,
               "training": training}, f, indent=1)
text = [f"# gpu_check: {gpu}", "", f"{seconds} seconds in all."]
text += ["", "| check | verdict | s |", "|---|---|---|"]
text += [f"| {c['check']} | {c['verdict']} | {c['seconds']} |" for c in checks]
for c in (c for c in layers if c["layer"] == "ceilings"):
    text += ["", f"Ceilings measured: {c['gb_per_s']} GB/s copied, {c['tflop_per_s']} TFLOP/s in "
             "matrix products."]
text += ["", "| layer | us | GB/s | TFLOP/s | bound by | % of that ceiling |",
         "|---|---|---|---|---|---|"]
columns = ["layer", "us", "gb_per_s", "tflop_per_s", "bound", "percent"]
text += [f"| {' | '.join(str(r[column]) for column in columns)} |"
         for r in layers if r["layer"] != "ceilings"]
text += ["", "| model | trained by | ms a step (each round) | tok/s (median) |",
         "|---|---|---|---|"]
for key in dict.fromkeys((r["model"], r["way"]) for r in training):
    rows = [r for r in training if (r["model"], r["way"]) == key]
    good = [r for r in rows if "ms" in r]
    speed = round(statistics.median(r["tok_per_s"] for r in good)) if good else rows[0]["error"]
    text.append(f"| {key[0]} | {key[1]} | {', '.join(str(r['ms']) for r in good)} | {speed} |")
open(os.path.join(out, "report.md"), "w").write("\n".join(text) + "\n")
print("\n".join(text))
END
[ $FAILED = 0 ] && echo "all passed: $OUT/report.md" || echo "something failed: see $OUT/logs"
exit $FAILED
