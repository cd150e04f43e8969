#!/usr/bin/env bash
# Everything a change must pass: lint, format, types, tests.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
mypy
bash scripts/test.sh "$@"
