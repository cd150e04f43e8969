#!/usr/bin/env bash
# Tests against a real vLLM on the CPU, server and in process. Arguments go to pytest; the log is kept in runs/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_vllm.sh"
mkdir -p runs
MM_AGRAE_VLLM_TESTS=1 OMP_NUM_THREADS=1 python -m pytest tests/vllm --durations=10 "$@" 2>&1 | tee runs/test_vllm.log
