#!/usr/bin/env bash
# The main job on a small scale: generates the shapes data set, compares LocalDETR and Faster R-CNN on it with the same pipeline and schedule,
# prints one table, draws one picture and ends in the report of tools/compare.py. About 20 minutes on 2 cores after set-up. Run again to
# continue or repeat.
#
#   bash tools/demo.sh [--fresh] [options of tools/setup_env.sh]
#
#   --fresh   forget earlier runs of the demo
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
work=work_dirs/demo
case "${1:-}" in
  -h|--help) sed -n '2,8p' tools/demo.sh; exit 0 ;;
  --fresh) shift; rm -rf "$work" ;;
esac

bash tools/setup_env.sh "$@"
python=$(bash tools/setup_env.sh "$@" --which)
export PYTHONWARNINGS="ignore:pkg_resources is deprecated"

SECONDS=0
say() { printf '\n[demo] %s (%d min passed)\n' "$1" $((SECONDS / 60)); }

say "1/3 generating the shapes data set"
"$python" tools/make_shapes.py data/shapes
# on CPUs both at a time, each with half of the cores: so small a training gains little from more of them
jobs=$("$python" -c 'import os, torch; print(1 if torch.cuda.is_available() else min(2, len(os.sched_getaffinity(0))))')
say "2/3 comparing two models: audit, trainings, evaluation, report"
"$python" tools/compare.py configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py configs/shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py \
  --curve-points 4 --jobs "$jobs" --work-dir "$work"
say "3/3 table and picture"
"$python" tools/demo_report.py "$work"
printf '\n[demo] done in %d min; the report: %s/report.html\n' $((SECONDS / 60)) "$work"
