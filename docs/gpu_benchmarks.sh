#!/bin/bash
# Everything that docs/benchmarks.md says of a GPU: tests, benchmarks, whole lab runs. Run it in a checkout, in an
# environment with vidcvae's dev extra; results go to the folder OUT (h200-DATE).
set -u
out=${OUT:-h200-$(date +%F)}
mkdir -p "$out"
vidcvae() { python -m vidcvae "$@"; }
bench() {
    echo "vidcvae bench $*" | tee -a "$out/bench.txt"
    vidcvae bench "$@" --json 2>>"$out/errors.txt" | tee -a "$out/bench.txt"
}

{ nvidia-smi; vidcvae doctor; } 2>&1 | tee "$out/machine.txt"
python -m pytest -m gpu -ra --tb=short --timeout 600 2>&1 | tee "$out/tests.txt"

for p in float32 auto; do
    bench train --precision $p --repeats 9
    bench train --model svg-fp --precision $p --repeats 9
    bench train --model anchor-cvae --batch-size 8 --frames 4 --precision $p --repeats 9
    bench generate --frames 630 --precision $p --repeats 3
    bench generate --model anchor-cvae --frames 630 --precision $p --repeats 3
done
for n in 8 16 32; do
    bench train --precision auto --batch-size $n
    bench train --precision auto --batch-size $n --compile
done
for size in 64x128 128x256; do bench train --precision auto --frames 8 --size $size; done

# 70 epochs x 731 steps x 2 clips of 16 (target: 6 minutes), and as many clips at batch 32 (target: 2)
vidcvae dataset synth dance "$out/lab" --frames 23410 --val 630
lab() { vidcvae train "$out/lab" --preset course --set training.precision=auto --json "$@"; }
time lab --set training.steps_per_epoch=731 --run "$out/lab-2" >"$out/lab-2.jsonl"
time lab --set training.steps_per_epoch=46 --batch-size 32 --run "$out/lab-32" >"$out/lab-32.jsonl"
tail -n 1 "$out"/lab-*.jsonl
