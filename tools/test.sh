#!/usr/bin/env bash
# Sets up the environment and runs the linter and the tests.
#
#   bash tools/test.sh [options of tools/setup_env.sh] [-- options of pytest]
#
# Slow proofs: bash tools/test.sh -- -m slow
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case "${1:-}" in -h|--help) sed -n '2,6p' tools/test.sh; exit 0 ;; esac
setup=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do setup+=("$1"); shift; done
[ $# -eq 0 ] || shift
bash tools/setup_env.sh ${setup[@]+"${setup[@]}"}
python=$(bash tools/setup_env.sh ${setup[@]+"${setup[@]}"} --which)
"$python" -m ruff check .
"$python" -m ruff format --check -q .
if [ $# -eq 0 ]; then  # two processes of one thread each: most tests are Python's work, which a second thread does not help
  export OMP_NUM_THREADS=1
  # in the order of tests/conftest.py: else files of few tests, which are the long ones, come last, and one process waits for the other
  set -- -n 2 --dist loadgroup --no-loadscope-reorder
fi
exec "$python" -m pytest "$@"
