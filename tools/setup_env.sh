#!/usr/bin/env bash
# Sets up everything the plugin needs, versions pinned in tools/versions.txt. Safe to run again; continues after an interruption.
#
#   bash tools/setup_env.sh [--active] [--torch-index URL] [--cpu-ops] [--python PYTHON]
#
#   --active           install into the active environment (a torch that is already there is kept), instead of .venv in the checkout
#   --torch-index URL  take torch from this index, for instance a CPU-only one; the default takes it from pip's own configuration
#   --cpu-ops          build mmcv's ops without CUDA even where a GPU is present (DETR runs on the GPU all the same, Faster R-CNN does not)
#   --python PYTHON    the interpreter to make .venv with (3.11 or 3.12); default: the first suitable one on PATH
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
versions="$root/tools/versions.txt"
env_dir="$root/.venv"
cache="${MMDET_DETR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_detr_plugin}"
active=0 torch_index='' cpu_ops=0 python=''

say() { printf '\n[setup] %s\n' "$*"; }
die() { printf '\n[setup] ERROR: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --active) active=1 ;;
    --cpu-ops) cpu_ops=1 ;;
    --torch-index|--python)
      [ $# -ge 2 ] || die "$1 needs a value (see the head of tools/setup_env.sh)"
      if [ "$1" = --python ]; then python=$2; else torch_index=$2; fi
      shift ;;
    -h|--help) sed -n '2,9p' "$0"; exit 0 ;;
    *) die "unknown option '$1'; known are --active, --torch-index URL, --cpu-ops, --python PYTHON" ;;
  esac
  shift
done

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${python:-python3.11 python3.12 python3 python}; do
    if is_supported "$candidate"; then command -v "$candidate"; return 0; fi
  done
  die "Python 3.11 or 3.12 is needed; ${python:-python3.11, python3.12, python3 and python} ${python:+is something else}${python:-are missing or something else}. Install one, or name it with --python."
}

make_environment() {
  if [ "$active" = 1 ]; then
    py=$(command -v python3 || command -v python) || die "--active: no python in the active environment"
    is_supported "$py" || die "--active: Python 3.11 or 3.12 is needed, the active environment has $("$py" --version 2>&1)"
  else
    if ! is_supported "$env_dir/bin/python" || ! "$env_dir/bin/python" -m pip --version >/dev/null 2>&1; then
      local base; base=$(find_python)
      say "making .venv with $("$base" --version)"
      "$base" -m venv --clear "$env_dir" ||
        die "the venv module failed; on Debian and Ubuntu: apt-get install python3-venv (or use --active in an environment of your own)"
    fi
    py="$env_dir/bin/python"
  fi
}

pip_install() { "$py" -m pip install --disable-pip-version-check -c "$constraints" "$@" > >(grep --line-buffered -v 'already satisfied' || true); }

write_constraints() {
  # A torch that the active environment brought along is kept: its line leaves the constraints.
  constraints="$work/constraints.txt"
  cp "$versions" "$constraints"
  local found
  found=$("$py" -c 'import torch; print(torch.__version__)' 2>/dev/null || true)
  if [ "$active" = 1 ] && [ -n "$found" ]; then
    grep -v '^torch==' "$versions" > "$constraints"
    echo "torch==$found" >> "$constraints"
  fi
}

install_torch() {
  if "$py" -c 'import torch' 2>/dev/null && [ "$active" = 1 ]; then return; fi
  "$py" - "$versions" <<'PY' && return
import re, sys
try:
    import torch
except Exception:
    sys.exit(1)
sys.exit(torch.__version__.split('+')[0] != re.search(r'^torch==(\S+)', open(sys.argv[1]).read(), re.M)[1])
PY
  say "step 1/4: torch (0.2 GB for the CPU build, about 3 GB with CUDA; 1 to 10 minutes)"
  pip_install torch ${torch_index:+--index-url "$torch_index" --extra-index-url "${PIP_INDEX_URL:-$("$py" -m pip config get global.index-url 2>/dev/null || echo https://pypi.org/simple)}"} ||
    die "torch could not be installed; see pip's message above (network, disk space, or the index given by --torch-index)"
}

ops_work() {
  "$py" - 2>"$work/ops_error.txt" <<'PY'
import torch
from mmcv.ops import batched_nms, RoIAlign, nms
boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 9.9], [20., 20., 30., 30.]])
_, keep = nms(boxes, torch.tensor([.9, .8, .7]), .5)
assert keep.tolist() == [0, 2], keep
PY
}

install_mmcv() {
  local key stamp want
  key=$("$py" -c 'import sys, torch; print(f"py{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-cuda{torch.version.cuda}")')
  local device=cpu
  if [ "$cpu_ops" = 0 ] && "$py" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    device=cuda
    [ -n "${CUDA_HOME:-}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] ||
      die "this machine has a GPU but no CUDA compiler. Install the CUDA toolkit $("$py" -c 'import torch; print(torch.version.cuda)') (nvcc) so that mmcv's ops can be built for it, or pass --cpu-ops."
  fi
  want=$(sed -n 's/^mmcv==//p' "$versions")
  key="mmcv$want-$key-$device"
  stamp=$("$py" -c 'import sys; print(sys.prefix)')/mmcv_ops_built_for.txt
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && ops_work; then return; fi
  if [ "$active" = 1 ] && [ ! -f "$stamp" ] && ops_work; then say "mmcv's ops in the active environment work; kept"; return; fi

  say "step 2/4: mmcv $want for $key"
  pip_install setuptools wheel ninja psutil
  local wheels="$cache/$key" build="$cache/build-$key" log="$cache/build-$key.log"
  mkdir -p "$wheels"
  if ! compgen -G "$wheels/mmcv-*.whl" >/dev/null; then
    command -v "${CXX:-g++}" >/dev/null || command -v c++ >/dev/null ||
      die "a C++ compiler is needed to build mmcv's ops; on Debian and Ubuntu: apt-get install g++"
    "$py" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
      die "Python's headers (Python.h) are needed to build mmcv's ops; on Debian and Ubuntu: apt-get install python3-dev"
    if [ ! -f "$build/setup.py" ]; then
      rm -rf "$build" "$build.part"; mkdir -p "$build.part"
      "$py" -m pip download --disable-pip-version-check -q --no-deps --no-build-isolation --no-binary :all: -d "$build.part" "mmcv==$want" ||
        die "mmcv's source package could not be downloaded; see pip's message above"
      tar -xzf "$build.part"/mmcv-*.tar.gz -C "$build.part" --strip-components=1
      mv "$build.part" "$build"
    fi
    local jobs; jobs=${MAX_JOBS:-$( (nproc || sysctl -n hw.ncpu || echo 2) 2>/dev/null | head -n 1)}
    say "compiling mmcv's ops with $jobs processes (about 8 minutes on 2 cores, once; an interrupted build goes on where it stopped; log: $log)"
    local hide_gpu=(); [ "$device" = cpu ] && hide_gpu=(CUDA_VISIBLE_DEVICES= FORCE_CUDA=0)
    (cd "$build" && env ${hide_gpu[@]+"${hide_gpu[@]}"} MMCV_WITH_OPS=1 MAX_JOBS="$jobs" CFLAGS="${CFLAGS:-} -g0 -O2" CXXFLAGS="${CXXFLAGS:-} -g0 -O2" \
      PATH="$(dirname "$py"):$PATH" "$py" setup.py bdist_wheel -d "$wheels.part") > "$log" 2>&1 &
    watch_build $! "$log"
    mv "$wheels.part"/mmcv-*.whl "$wheels/" && rm -rf "$wheels.part" "$build"
  fi
  pip_install --force-reinstall --no-deps "$wheels"/mmcv-*.whl
  echo "$key" > "$stamp"
}

watch_build() {
  # ninja writes [done/all] lines into the log; show them with the time that is left.
  local pid=$1 log=$2 start=$SECONDS first='' done_ all last='' spent
  trap 'kill '"$pid"' 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 5
    IFS=' ' read -r done_ all < <(grep -aoE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 | tr -d '[]' | tr '/' ' ') || continue
    [ -n "${done_:-}" ] && [ "$done_" != "$last" ] || continue
    last=$done_; spent=$((SECONDS - start)); : "${first:=0}"
    printf '[setup] mmcv: %s of %s files compiled, %d s passed, about %d s left\n' "$done_" "$all" "$spent" $((spent * (all - done_) / done_))
  done
  trap - INT TERM
  wait "$pid" || { tail -n 25 "$log" >&2; die "mmcv's build failed; its last lines are above, the whole log is $log"; }
}

install_packages() {
  local want have stamp
  stamp=$("$py" -c 'import sys; print(sys.prefix)')/mmdet_detr_plugin_versions.txt
  want=$(cat "$constraints" "$root/setup.py" <(echo "$root") | sha256sum)
  have=$(cat "$stamp" 2>/dev/null || true)
  [ "$want" = "$have" ] && return
  say "step 3/4: mmdet, the plugin and the test tools (1 to 3 minutes)"
  pip_install --no-build-isolation -e "$root[tests]" || die "a package could not be installed; see pip's message above"
  # Whichever OpenCV came last owns the shared folder; the headless one needs no display libraries.
  pip_install --force-reinstall --no-deps opencv-python-headless
  echo "$want" > "$stamp"
}

check() {
  say "step 4/4: checking"
  ops_work || { cat "$work/ops_error.txt" >&2; die "mmcv's ops do not import; remove $(dirname "$py")/../mmcv_ops_built_for.txt and $cache, and run this again"; }
  "$py" - <<'PY'
import sys, torch, numpy, scipy, cv2, mmcv, mmengine, mmdet, pycocotools, mmdet_detr_plugin
device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
print(f'[setup] Python {sys.version.split()[0]}, torch {torch.__version__} on {device}, numpy {numpy.__version__}, scipy {scipy.__version__}, '
      f'opencv {cv2.__version__}, mmcv {mmcv.__version__} (ops work), mmengine {mmengine.__version__}, mmdet {mmdet.__version__}, '
      f'mmdet_detr_plugin {mmdet_detr_plugin.__version__}')
PY
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_environment
write_constraints
install_torch
install_mmcv
install_packages
check
say "ready: $py"
