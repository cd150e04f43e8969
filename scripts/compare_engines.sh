#!/usr/bin/env bash
# Do rollouts from a vLLM server teach what the embedded engine's teach? From one warm start of the quickstart: the
# embedded engine with two seeds, which shows the noise, and a vLLM server with the first of them. On the CPU, in the
# environment of scripts/test_vllm.sh.
#   bash scripts/compare_engines.sh [STEPS]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_vllm.sh"
steps="${1:-300}"
work="runs/compare_engines/$(date +%Y%m%d-%H%M%S)"
settings=("data.train.path=$work/data" "data.eval.held_out.path=$work/data")
mm-agrae data gym --out "$work/data" --families charts/tallest_bar,charts/red_bar --size 64 --num 12000 --held-out 256
mm-agrae model tiny --out "$work/model" --data "$work/data"
mm-agrae sft configs/quickstart.yaml "${settings[@]}" "model.path=$work/model" --out "$work/warm_start"
start="$(echo "$work"/warm_start/checkpoints/step_*/model)"
settings+=("model.path=$start" "train.num_steps=$steps" train.checkpoint_every=0)

export MM_AGRAE_VLLM_API_KEY="${MM_AGRAE_VLLM_API_KEY:-$(python -c 'import secrets; print(secrets.token_hex(16))')}"
port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
bash scripts/serve_vllm.sh "$start" --port "$port" --dtype float32 --max-model-len 256 --max-num-seqs 64 \
  --max-num-batched-tokens 16384 --enforce-eager --distributed-executor-backend uni >"$work/server.log" 2>&1 &
trap 'kill %1' EXIT
mm-agrae train configs/quickstart.yaml "${settings[@]}" --out "$work/embedded"
mm-agrae train configs/quickstart.yaml "${settings[@]}" seed=1 --out "$work/embedded_seed_1"
mm-agrae train configs/quickstart.yaml "${settings[@]}" --out "$work/vllm_server" \
  engine.kind=vllm_server "engine.base_urls=[http://127.0.0.1:$port]"

python - "$work"/embedded "$work"/embedded_seed_1 "$work"/vllm_server <<'EOF'
import json, sys
from pathlib import Path

for run in map(Path, sys.argv[1:]):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracy = [line["reward/batch_accuracy"] for line in lines if "reward/batch_accuracy" in line]
    tenth = max(1, len(accuracy) // 10)
    means = [sum(part) / len(part) for part in (accuracy[i : i + tenth] for i in range(0, len(accuracy), tenth))]
    ends = [f"{line['eval/held_out/pass@1']:.3f}" for line in (lines[0], lines[-1])]
    print(f"{run.name:<18}", "accuracy by tenths of the run:", " ".join(f"{mean:.3f}" for mean in means), "pass@1", *ends)
EOF
