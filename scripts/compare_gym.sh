#!/usr/bin/env bash
# Compare estimators on the visual gym, from nothing: for every seed draw problems, build a small model and warm-start
# it, then run each algorithm from that start and make the table. What is done already is not done again.
#
#   bash scripts/compare_gym.sh              two runs side by side, one core each
#   JOBS=8 bash scripts/compare_gym.sh       more of them
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # another number of threads rounds differently
recipe=configs/comparison_gym.yaml
for seed in 0 1 2; do
  work="runs/comparison/seed$seed"
  if [ ! -f "$work/warm_start/checkpoints/step_000090/COMPLETE" ]; then
    rm -rf "$work"
    mm-agrae data gym --out "$work/data" --families charts/tallest_bar,charts/red_bar --size 64 --num 12000 \
      --held-out 256 --seed "$seed"
    mm-agrae model tiny --out "$work/model" --data "$work/data" --architecture qwen2_5_vl --seed "$seed"
    mm-agrae sft "$recipe" "seed=$seed" "model.path=$work/model" "data.train.path=$work/data" \
      "data.eval.held_out.path=$work/data" --out "$work/warm_start"
  fi
done
mm-agrae compare configs/comparisons/gym.yaml --out runs/comparison/gym --jobs "${JOBS:-2}"
