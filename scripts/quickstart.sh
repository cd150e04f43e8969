#!/usr/bin/env bash
# The main job in miniature, from nothing: draw problems, build a small model, warm-start it, train it with A-GRAE,
# measure it before and after, and name the report to open.
#
#   bash scripts/quickstart.sh [vision|text] [settings for `mm-agrae train` ...]
#   SEED=1 bash scripts/quickstart.sh vision 'algorithm.weighting=[]'      another seed, plain GRPO
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
seed="${SEED:-0}"
kind="vision"
case "${1:-}" in vision | text) kind="$1" && shift ;; esac
work="runs/quickstart/$(date +%Y%m%d-%H%M%S)-$kind-seed$seed"
gym=(--families charts/tallest_bar,charts/red_bar --size 64 --num 12000 --held-out 256 --seed "$seed")
if [ "$kind" = vision ]; then
  recipe=configs/quickstart.yaml architecture=qwen2_5_vl
else
  recipe=configs/quickstart_text.yaml architecture=qwen3
  gym+=(--text-only)
fi
settings=("seed=$seed" "data.train.path=$work/data" "data.eval.held_out.path=$work/data")

mm-agrae data gym --out "$work/data" "${gym[@]}"
mm-agrae model tiny --out "$work/model" --data "$work/data" --architecture "$architecture" --seed "$seed"
mm-agrae sft "$recipe" "${settings[@]}" "model.path=$work/model" --out "$work/warm_start"
start="$(echo "$work"/warm_start/checkpoints/step_*/model)"
mm-agrae train "$recipe" "${settings[@]}" "model.path=$start" --out "$work/train" "$@"
