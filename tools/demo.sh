#!/usr/bin/env bash
# The main job on a small scale: generates the shapes data set, trains LocalDETR and Faster R-CNN on it with the same pipeline and schedule,
# evaluates both, prints one table and draws one picture. About 15 minutes on 2 cores after set-up. Run again to continue or repeat.
#
#   bash tools/demo.sh [--fresh] [options of tools/setup_env.sh]
#
#   --fresh   forget earlier runs of the demo
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case "${1:-}" in
  -h|--help) sed -n '2,7p' tools/demo.sh; exit 0 ;;
  --fresh) shift; rm -rf work_dirs/demo ;;
esac

bash tools/setup_env.sh "$@"
python=$(bash tools/setup_env.sh "$@" --which)
export PYTHONWARNINGS="ignore:pkg_resources is deprecated"
mmdet_tools=$("$python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("mmdet").origin).parent / ".mim" / "tools")')
work=work_dirs/demo
mkdir -p "$work"

SECONDS=0
minutes_left=15
say() { printf '\n[demo] %s (%d min passed, about %d left)\n' "$1" $((SECONDS / 60)) "$minutes_left"; }

# Shows what matters of a long log, keeps all of it in a file, and shows the end of that file when the command fails.
run() {
  local log=$1; shift
  if ! "$@" 2>&1 | tee -a "$log" | grep --line-buffered -oE 'Epoch\((train|val|test)\).*(eta: [0-9:]+).*loss: [0-9.]+|Epoch\((val|test)\).*|.*Error.*' |
      sed -uE 's/ +(base_)?lr:.*(eta: [0-9:]+).*( loss: [0-9.]+)/  \2 \3/'; then
    echo "[demo] failed: $*" >&2; tail -n 20 "$log" >&2; exit 1
  fi
}

say "1/4 generating the shapes data set"
"$python" tools/make_shapes.py data/shapes

epochs=10
models=(local-detr_r18-half_1xb4-10e_shapes faster-rcnn_r18-half_fpn_1xb4-10e_shapes)
step=2
for model in "${models[@]}"; do
  config=configs/shapes/$model.py
  run_dir=$work/$model
  mkdir -p "$run_dir"
  # last_checkpoint is written after the file it names
  if grep -qs "epoch_$epochs.pth" "$run_dir/last_checkpoint"; then
    say "$step/4 $model was trained before (--fresh trains again)"
  else
    say "$step/4 training $model: $epochs epochs; eta is for this model"
    run "$run_dir/train.txt" "$python" "$mmdet_tools/train.py" "$config" --work-dir "$run_dir" --resume
  fi
  minutes_left=$((minutes_left - 7))
  say "$step/4 evaluating $model"
  run "$run_dir/test.txt" "$python" "$mmdet_tools/test.py" "$config" "$run_dir/epoch_$epochs.pth" --work-dir "$run_dir" \
    --cfg-options test_evaluator.outfile_prefix="$run_dir/detections"
  step=$((step + 1))
done

minutes_left=0
say "4/4 table and picture"
"$python" tools/demo_report.py "$work" "LocalDETR=configs/shapes/${models[0]}.py" "Faster R-CNN=configs/shapes/${models[1]}.py"
printf '\n[demo] done in %d min\n' $((SECONDS / 60))
