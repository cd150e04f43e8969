#!/usr/bin/env bash
# Make .venv with everything the project needs; quick when it is there already. Sourced by the other scripts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $("$python" --version) found, but Python 3.11 or later is needed. Install it, or name it: PYTHON=python3.12" >&2
  exit 2
}
stamp="$(cat pyproject.toml scripts/constraints.txt | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
if [ "$(cat .venv/.installed 2>/dev/null)" != "$stamp" ]; then
  echo "setting up .venv ..."
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  # uv is several times faster; plain pip does the same where uv cannot be had or does not find the index.
  if ! { .venv/bin/python -m pip install --quiet uv &&
    UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" VIRTUAL_ENV="$PWD/.venv" \
      .venv/bin/python -m uv pip install --quiet -c scripts/constraints.txt -e '.[dev]'; }; then
    .venv/bin/python -m pip install --quiet -c scripts/constraints.txt -e '.[dev]'
  fi
  echo "$stamp" >.venv/.installed
fi
export PATH="$PWD/.venv/bin:$PATH"
# Waiting threads that spin slow a shared machine down many times over.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
