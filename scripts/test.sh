#!/usr/bin/env bash
# Set everything up and pass the tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
workers="${TEST_WORKERS:-$(python -c 'import os; print(min(8, len(os.sched_getaffinity(0))))')}"
# One thread per worker: two workers with two threads each on two cores wait for each other.
OMP_NUM_THREADS=1 python -m pytest -n "$workers" "$@"
