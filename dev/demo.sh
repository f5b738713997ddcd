#!/bin/sh
# make demo: from nothing to a tale. Says first how long it will take on this machine. Each command
# here is one that you can type yourself; the README explains their flags.
# make demo-emu (dev/demo.sh emu): ten steps of that run twice, by train_gpt2.cpp and by the CUDA
# kernels of train_gpt2.cu on the CPU, loss beside loss.
set -eu
MODE=${1:-train}
PYTHON=${PYTHON:-python3}
DATA=data/tales RUN=runs/demo STEPS=3600
# From here on "$@" is the flags of the run.
set -- --train "$DATA/train_*.bin" --val "$DATA/val_*.bin" --tokenizer $DATA/tokenizer.gguf \
    --layers 4 --heads 4 --channels 128 --context 256 --batch 2 --lr 3e-3 --warmup 100 --beta2 0.99

say() { printf '\n== %s\n' "$1"; }

if [ ! -f $DATA/manifest.json ]; then
    say "Writing a corpus of short tales, and turning it into tokens"
    "$PYTHON" data/tales.py --out $DATA
    "$PYTHON" data/prepare.py $DATA/train.txt --val $DATA/val.txt --tokenizer bpe:1024 \
        --licence MIT --out $DATA
fi

if [ "$MODE" = emu ]; then
    rm -rf $RUN-emu
    for program in train_gpt2 train_gpt2emu; do
        say "Ten steps of the demo with ./$program"
        ./$program "$@" --steps 10 --eval-batches 4 --out $RUN-emu/$program
    done
    "$PYTHON" - $RUN-emu <<'END'
import json, sys
cpu, cuda = ([json.loads(line) for line in open(f"{sys.argv[1]}/{program}/log.jsonl")][1:]
             for program in ("train_gpt2", "train_gpt2emu"))
print("\n step   train_gpt2.cpp    train_gpt2.cu   relative difference")
for a, b in zip(cpu, cuda):
    apart = abs(a["loss"] - b["loss"]) / a["loss"]
    print(f"{a['step']:5} {a['loss']:16.9f} {b['loss']:16.9f} {apart:21.1e}")
END
    exit
fi

say "Training a GPT of 0.9 million parameters for $STEPS steps (rm -r $RUN starts afresh)"
if [ ! -f $RUN/model.gguf ]; then
    rm -rf $RUN-pace
    said=$(./train_gpt2 "$@" --steps 100 --eval-batches 1 --out $RUN-pace 2>&1) ||
        { echo "$said"; exit 1; }
    "$PYTHON" - $RUN-pace/log.jsonl $STEPS <<'END'
import json, statistics, sys
ms = statistics.median(json.loads(line).get("ms", 0) for line in open(sys.argv[1]))
minutes = ms * int(sys.argv[2]) * 7 / 6 / 60000   # looking at validation takes a sixth more
print(f"about {minutes:.1f} minutes at the pace of 100 steps; Ctrl-C saves, make demo goes on")
END
    rm -r $RUN-pace
fi
./train_gpt2 "$@" --steps $STEPS --eval-every 400 --resume --out $RUN

"$PYTHON" - $DATA/manifest.json $RUN/log.jsonl <<'END'
import json, sys
manifest = json.load(open(sys.argv[1]))
mark = manifest["marks_nats_per_token"][manifest["mark"]]
loss = [json.loads(line) for line in open(sys.argv[2])][-1]["val_loss"]
print(f"\nloss on tales it has never seen: {loss:.3f} nats per token")
print(f"the mark to pass is the {manifest['mark']}'s, {mark:.3f}: this is {loss / mark:.2f} of it")
END

say "A tale that it tells"
./infer -m $RUN/model.gguf -n 255 --temp 0.4 --seed 1

cat <<END

== What next
Another tale:            ./infer -m $RUN/model.gguf -n 255 --temp 0.4 --seed 2
Let it go on:            ./infer -m $RUN/model.gguf -p "Once there was a brave mouse" --temp 0.7
See the curves:          $RUN/loss.svg
Read the code:           start with layers.h, then gpt2.h (doc/map.md has the way)
Train on your own text:  $PYTHON data/prepare.py book.txt --tokenizer bpe:1024 --out data/book
                         ./train_gpt2 --train "data/book/train_*.bin" --val "data/book/val_*.bin" \\
                             --tokenizer data/book/tokenizer.gguf --steps 1000 --lr 3e-3 \\
                             --warmup 50 --out runs/book
END
