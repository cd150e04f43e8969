#!/usr/bin/env bash
# Serve a model for engine.kind=vllm_server. Flags after the model go to vLLM.
#   MM_AGRAE_VLLM_API_KEY=... bash scripts/serve_vllm.sh MODEL [--port 8000] [--dtype bfloat16] [...]
# For engine.sync=nccl add --weight-transfer-config '{"backend": "nccl"}', for engine.sync=ipc the same with "ipc" and
# VLLM_ALLOW_INSECURE_SERIALIZATION=1 before the command: vLLM then unpickles what comes, so whoever reaches the port can
# run code here. Set it only where all users of this machine are trusted.
# On a CPU let --max-num-batched-tokens be at least --max-num-seqs times --max-model-len (the trainer refuses less): there
# vLLM 0.32 dies where it cuts the prompt of a seeded request in two.
# vLLM guards /v1 and /inference by the key, but not the routes that take new weights: whoever reaches the port can change
# the model. The server therefore listens to this machine alone. For another machine, forward the port over ssh.
set -euo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,8p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
model="$1"
shift
# By the environment and not as a flag, which every user of the machine could read.
export VLLM_API_KEY="${MM_AGRAE_VLLM_API_KEY:?holds no key: set it to one of your choice, for the server and for the trainer}"
export VLLM_SERVER_DEV_MODE=1
# Pictures come as the trainer computes with them: vLLM must not normalise them once more.
exec python -m vllm.entrypoints.openai.api_server --model "$model" --host 127.0.0.1 \
  --enable-scale-out \
  --logprobs-mode processed_logprobs \
  --no-mm-device-do-normalize \
  --limit-mm-per-prompt '{"image": 16, "video": 0}' \
  --worker-extension-cls mm_agrae.engines.vllm_worker.WeightExtension \
  --weight-transfer-config '{"backend": "mm_agrae"}' \
  "$@"
