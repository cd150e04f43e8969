#!/usr/bin/env bash
# Tests against a real vLLM on the CPU, server and in process. Arguments go to pytest: tests/vllm/..., where not all are
# wanted, and options. The log is kept in runs/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_vllm.sh"
mkdir -p runs
tests=(tests/vllm)
[[ " $*" == *" tests/"* ]] && tests=()
MM_AGRAE_VLLM_TESTS=1 OMP_NUM_THREADS=1 python -m pytest --durations=10 "${tests[@]}" "$@" 2>&1 | tee runs/test_vllm.log
