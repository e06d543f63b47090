#!/usr/bin/env bash
# Sets up the environment and runs the tests: bash tools/test.sh [pytest options]; slow proofs: bash tools/test.sh -m slow
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
bash tools/setup_env.sh
.venv/bin/python -m ruff check .
exec .venv/bin/python -m pytest "$@"
