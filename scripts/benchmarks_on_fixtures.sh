#!/usr/bin/env bash
# The whole suite of benchmarks in miniature, from nothing and without a network: draw a few rows of every benchmark in
# its own layout, convert them, build a small random model, measure it on all of them by their protocol cards.
# Samples, lengths and pixels are cut (evaluate.trial), and every summary names the cuts: the figures mean nothing,
# the way to them is the real one.
#
#   bash scripts/benchmarks_on_fixtures.sh [OUT] [settings for `mm-agrae eval` ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
root="$PWD"
work="${1:-runs/benchmarks_on_fixtures/$(date +%Y%m%d-%H%M%S)}"
[ $# -gt 0 ] && shift
mkdir -p "$work"

# One line per data set, with the splits that the cards measure: "mmmu_pro standard_10,vision".
python - > "$work/splits.txt" <<'PYTHON'
from mm_agrae.config.protocol import load_protocol, protocol_names

splits = {}
for card in map(load_protocol, protocol_names()):
    splits.setdefault(card.data.processor, []).append(card.data.split)
for name, of in splits.items():
    print(name, ",".join(of))
PYTHON
python -m tests.fixtures.draw --out "$work/drawn" $(cut -d" " -f1 "$work/splits.txt") > /dev/null
while read -r name split; do
  mm-agrae data convert "$name" --source "$work/drawn/$name" --split "$split" --out "$work/data/$name" --workers 1
done < "$work/splits.txt"
mm-agrae data gym --out "$work/words" --families charts/red_bar --size 64 --num 64 --held-out 0
mm-agrae model tiny --out "$work/model" --data "$work/words" --architecture qwen2_5_vl
cd "$work"  # the recipe names its sets below data/
mm-agrae eval "$root/configs/benchmarks.yaml" --out run model.path=model model.device=cpu \
  evaluate.trial.num_samples=2 evaluate.trial.max_completion_tokens=8 evaluate.trial.max_pixels=12544 "$@"
