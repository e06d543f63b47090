#!/usr/bin/env bash
# Sets up everything the plugin needs, versions pinned in tools/versions.txt. Safe to run again; continues after an interruption.
#
#   bash tools/setup_env.sh [--active] [--torch-index URL] [--cpu-ops] [--python PYTHON] [--versions FILE] [--which]
#
#   --active           install into the active environment (a torch that is already there is kept), instead of .venv in the checkout
#   --torch-index URL  take torch from this index, for instance a CPU-only one; the default takes it from pip's own configuration
#   --cpu-ops          build mmcv's ops without CUDA even where a GPU is present (DETR runs on the GPU all the same, Faster R-CNN does not)
#   --python PYTHON    the interpreter to make .venv with (3.11 or 3.12); default: the first suitable one on PATH
#   --versions FILE    other pinned versions, such as tools/versions-oldest.txt and tools/versions-newest.txt
#   --which            only print the interpreter that the other options lead to
#
# Variables: MAX_JOBS, how many compilers run at a time (default: as cores and memory allow); MMDET_DETR_CACHE, where mmcv's wheel is kept.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
versions="$root/tools/versions.txt"
env_dir="$root/.venv"
cache="${MMDET_DETR_CACHE:-${XDG_CACHE_HOME:-${HOME:-$root}/.cache}/mmdet_detr_plugin}"
active=0 torch_index='' cpu_ops=0 python='' which=0

say() { printf '\n[setup] %s\n' "$*"; }
die() { printf '\n[setup] ERROR: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --active) active=1 ;;
    --cpu-ops) cpu_ops=1 ;;
    --which) which=1 ;;
    --torch-index|--python|--versions)
      [ $# -ge 2 ] || die "$1 needs a value (see the head of tools/setup_env.sh)"
      case "$1" in --python) python=$2 ;; --versions) versions=$2 ;; *) torch_index=$2 ;; esac
      shift ;;
    -h|--help) sed -n '2,13p' "$0"; exit 0 ;;
    *) die "unknown option '$1'; known are --active, --torch-index URL, --cpu-ops, --python PYTHON, --versions FILE, --which" ;;
  esac
  shift
done

[ -f "$versions" ] || die "--versions: $versions is missing; expected a file of lines such as torch==2.13.0, as in tools/versions.txt"

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  local candidate
  if [ -n "$python" ]; then
    is_supported "$python" || die "--python: Python 3.11 or 3.12 is needed; $python is missing or another version"
    command -v "$python"; return
  fi
  for candidate in python3.11 python3.12 python3 python; do
    if is_supported "$candidate"; then command -v "$candidate"; return; fi
  done
  die "Python 3.11 or 3.12 is needed, and none of python3.11, python3.12, python3 and python is one. Install one, or name it with --python."
}

packages_in() { find "$1"/lib*/python*/site-packages -maxdepth 1 -name '*.dist-info' 2>/dev/null | grep -vE '/(pip|setuptools|wheel)-' || true; }

# Notes about an environment lie in it, or, where its folder cannot be written (a shared Python), in the cache.
notes_folder() {
  local prefix; prefix=$("$py" -c 'import sys; print(sys.prefix)')
  if [ -w "$prefix" ]; then echo "$prefix"; return; fi
  local folder; folder="$cache/environment-$(printf %s "$prefix" | sha256sum | cut -c1-16)"
  mkdir -p "$folder" || die "$folder cannot be made; name a folder that can be written in MMDET_DETR_CACHE"
  echo "$folder"
}

make_environment() {
  if [ "$active" = 1 ]; then
    is_supported "$py" || die "--active: Python 3.11 or 3.12 is needed, the active environment has $("$py" --version 2>&1)"
    "$py" -m pip --version >/dev/null 2>&1 || die "--active: the active environment has no pip; install it (python -m ensurepip)"
    return
  fi
  local base same='import sys; print(sys.version_info[:2])'
  if is_supported "$py" && "$py" -m pip --version >/dev/null 2>&1; then
    [ -n "$python" ] || return 0
    base=$(find_python)
    [ "$("$base" -c "$same")" != "$("$py" -c "$same")" ] || return 0
  fi
  base=$(find_python)
  if [ -e "$env_dir" ]; then
    compgen -G "$env_dir/*.txt" >/dev/null || [ -z "$(packages_in "$env_dir")" ] ||
      die "$env_dir has another Python or no pip, and packages that this script did not install: it would be emptied. Remove it, or use --active in an environment of your own"
    say ".venv has another Python or no pip, and is made anew"
  fi
  say "making .venv with $("$base" --version)"
  "$base" -m venv --clear "$env_dir" ||
    die "the venv module failed; on Debian and Ubuntu: apt-get install python3-venv (or use --active in an environment of your own)"
}

pip_install() { "$py" -m pip install --disable-pip-version-check -c "$constraints" "$@"; }
has_torch() { "$py" -c 'import torch' 2>/dev/null; }

write_constraints() {
  # A torch that the active environment brought along is kept: its version takes the place of the pinned one.
  constraints="$work/constraints.txt"
  cp "$versions" "$constraints"
  if [ "$active" = 1 ] && has_torch; then
    grep -v '^torch==' "$versions" > "$constraints"
    "$py" -c 'import torch; print(f"torch=={torch.__version__}")' >> "$constraints"
  fi
}

install_torch() {
  if [ -n "$torch_index" ] && has_torch; then
    say "torch $("$py" -c 'import torch; print(torch.__version__)') is there already; --torch-index changes it only after .venv was removed"
  fi
  "$py" - "$constraints" <<'PY' && return
import re, sys
try:
    import ninja, pkg_resources, psutil, torch, wheel
except Exception:
    sys.exit(1)
wanted = re.search(r'^torch==(\S+)', open(sys.argv[1]).read(), re.M)[1]
sys.exit(torch.__version__.split('+')[0] != wanted.split('+')[0])
PY
  say "step 1/4: build tools and torch (0.2 GB for the CPU build, about 3 GB with CUDA; 1 to 10 minutes)"
  # Before torch, because an index of torch alone may lack them; mmcv's build and mmengine need pkg_resources of setuptools < 81.
  pip_install -q setuptools wheel ninja psutil || die "the build tools could not be installed; see pip's message above"
  pip_install torch ${torch_index:+--index-url "$torch_index"} ||
    die "torch could not be installed; see pip's message above (network, disk space, or the index given by --torch-index)"
}

ops_work() {
  "$py" -W ignore - "$versions" "$1" 2>"$work/ops_error.txt" <<'PY'
import re, sys
import mmcv, torch
from mmcv.ops import RoIAlign, nms
wanted = re.search(r'^mmcv==(\S+)', open(sys.argv[1]).read(), re.M)[1]
assert mmcv.__version__ == wanted, f'mmcv {mmcv.__version__} is installed, {wanted} is wanted'
boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 9.9], [20., 20., 30., 30.]], device=sys.argv[2])
_, keep = nms(boxes, torch.tensor([.9, .8, .7], device=sys.argv[2]), .5)
assert keep.tolist() == [0, 2], keep
PY
}

install_mmcv() {
  local key stamp want
  device=cpu
  if [ "$cpu_ops" = 0 ] && "$py" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    device=cuda
    [ -n "${CUDA_HOME:-}" ] || command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || ops_work cuda ||
      die "this machine has a GPU but no CUDA compiler. Install the CUDA toolkit $("$py" -c 'import torch; print(torch.version.cuda)') (nvcc) so that mmcv's ops can be built for it, or pass --cpu-ops."
  fi
  want=$(sed -n 's/^mmcv==//p' "$versions")
  key=mmcv$want-$device-$("$py" -c '
import platform, sys, torch
capability = "-sm{}{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else ""
other = "" if platform.machine() == "x86_64" else f"-{platform.machine()}"  # a home folder may be shared by several kinds of machines
print(f"py{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-cuda{torch.version.cuda}{capability}{other}")')
  stamp=$(notes_folder)/mmcv_ops_built_for.txt
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && ops_work "$device"; then return; fi
  if [ "$active" = 1 ] && [ ! -f "$stamp" ] && ops_work "$device"; then say "mmcv's ops in the active environment work; kept"; return; fi

  say "step 2/4: mmcv $want for $key"
  local wheels="$cache/$key"
  compgen -G "$wheels/mmcv-*.whl" >/dev/null || build_mmcv "$want" "$key" "$wheels"
  pip_install --force-reinstall --no-deps "$wheels"/mmcv-*.whl || die "mmcv's wheel could not be installed; remove $wheels and run this again"
  echo "$key" > "$stamp"
}

build_mmcv() {
  local want=$1 key=$2 wheels=$3
  local build="$cache/build-$key" log="$cache/build-$key.log"
  mkdir -p "$cache" "$wheels" || die "$cache cannot be written; name another folder in MMDET_DETR_CACHE"
  command -v "${CXX:-g++}" >/dev/null || command -v c++ >/dev/null ||
    die "a C++ compiler is needed to build mmcv's ops; on Debian and Ubuntu: apt-get install g++"
  "$py" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    die "Python's headers (Python.h) are needed to build mmcv's ops; on Debian and Ubuntu: apt-get install python3-dev"
  if command -v flock >/dev/null; then  # two set-ups share the cache: the second waits for the first one's wheel
    exec 9>"$cache/build-$key.lock"
    flock -n 9 || { say "another set-up is building mmcv; waiting for it"; flock 9; }
    if compgen -G "$wheels/mmcv-*.whl" >/dev/null; then return; fi
  fi
  if [ ! -f "$build/setup.py" ]; then
    rm -rf "$build" "$build.part"; mkdir -p "$build.part"
    "$py" -m pip download --disable-pip-version-check -q --no-deps --no-build-isolation --no-binary :all: -d "$build.part" "mmcv==$want" ||
      die "mmcv's source package could not be downloaded; see pip's message above"
    tar -xzf "$build.part"/mmcv-*.tar.gz -C "$build.part" --strip-components=1
    mv "$build.part" "$build"
  fi
  local headers; headers=$("$py" -c 'import os, torch; print(os.path.dirname(torch.__file__))')/include/ATen/ATen.h
  if grep -q '#error C++20' "$headers"; then sed -i.orig 's/-std=c++17/-std=c++20/' "$build/setup.py"; fi  # torch 2.15 and later
  local jobs; jobs=${MAX_JOBS:-$(compilers)}
  say "compiling mmcv's ops with $jobs processes (about 8 minutes on 2 cores, more with CUDA; only once; an interrupted build goes on where it stopped; log: $log)"
  local hide_gpu=(); [ "$device" = cuda ] || hide_gpu=(CUDA_VISIBLE_DEVICES= FORCE_CUDA=0)
  set -m  # a process group of its own, so that an interruption stops the compilers too
  (cd "$build" && exec env ${hide_gpu[@]+"${hide_gpu[@]}"} MMCV_WITH_OPS=1 MAX_JOBS="$jobs" CFLAGS="${CFLAGS:-} -g0 -O2" \
    CXXFLAGS="${CXXFLAGS:-} -g0 -O2" PATH="$(dirname "$py"):$PATH" "$py" setup.py bdist_wheel -d "$wheels.part") > "$log" 2>&1 9>&- &
  local pid=$!
  set +m
  watch_build "$pid" "$log"
  mv "$wheels.part"/mmcv-*.whl "$wheels/" || die "the build wrote no wheel; see $log"
  rm -rf "$wheels.part" "$build"
}

compilers() {  # as many as cores, and as memory, of which each takes up to 2 GB; a container may have less than the machine
  local cores memory limit used
  cores=$( (OMP_NUM_THREADS= nproc || sysctl -n hw.ncpu || echo 2) 2>/dev/null | head -n 1)  # which counts threads by that variable
  memory=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true); used=$(awk '/^anon / { print $2 }' /sys/fs/cgroup/memory.stat 2>/dev/null || true)  # without the cache of files
  case "$limit" in
    ''|*[!0-9]*) ;;
    *) limit=$(((limit - ${used:-0}) / 1048576)); if [ -z "$memory" ] || [ "$limit" -lt "$memory" ]; then memory=$limit; fi ;;
  esac
  if [ -n "$memory" ] && [ $((memory / 2048)) -lt "$cores" ]; then cores=$((memory / 2048)); fi
  if [ "$cores" -lt 1 ]; then cores=1; fi
  echo "$cores"
}

watch_build() {
  # ninja writes [done/all] lines into the log; show them with the time that is left.
  local pid=$1 log=$2 start=$SECONDS done_ all last='' spent
  trap 'kill -- -'"$pid"' 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 5
    IFS=' ' read -r done_ all < <(grep -aoE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 | tr -d '[]' | tr '/' ' ') || continue
    [ -n "${done_:-}" ] && [ "$done_" != "$last" ] || continue
    last=$done_; spent=$((SECONDS - start))
    printf '[setup] mmcv: %s of %s files compiled, %d s passed, about %d s left\n' "$done_" "$all" "$spent" $((spent * (all - done_) / done_))
  done
  trap - INT TERM
  wait "$pid" || { tail -n 25 "$log" >&2; die "mmcv's build failed; its last lines are above, the whole log is $log. Where it says Killed, memory ran out: run this again with MAX_JOBS=1"; }
}

install_packages() {
  local want stamp
  stamp=$(notes_folder)/mmdet_detr_plugin_versions.txt
  want=$(cat "$constraints" "$root/setup.py" <(echo "$root") | sha256sum)
  [ "$want" != "$(cat "$stamp" 2>/dev/null || true)" ] || return 0
  say "step 3/4: mmdet, the plugin and the test tools (1 to 3 minutes)"
  pip_install --no-build-isolation -e "$root[tests]" || die "a package could not be installed; see pip's message above"
  # Whichever OpenCV came last owns the shared folder; the headless one needs no display libraries.
  pip_install -q --force-reinstall --no-deps opencv-python-headless || die "OpenCV could not be installed; see pip's message above"
  echo "$want" > "$stamp"
}

check() {
  say "step 4/4: checking"
  # only now: mmcv needs the other packages to be imported
  ops_work "$device" || { cat "$work/ops_error.txt" >&2; die "mmcv's ops do not work (see above); remove the wheels in $cache and run this again"; }
  "$py" -W ignore - "$root" <<'PY' || die "the installed packages do not work together (see above)"
import sys, torch, numpy, scipy, cv2, mmcv, mmengine, mmdet, pycocotools, mmdet_detr_plugin
from mmengine.config import Config
Config.fromfile(f'{sys.argv[1]}/configs/detr/detr_r50_8xb2-150e_coco.py')
device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
print(f'[setup] Python {sys.version.split()[0]}, torch {torch.__version__} on {device}, numpy {numpy.__version__}, scipy {scipy.__version__}, '
      f'opencv {cv2.__version__}, mmcv {mmcv.__version__} (ops work), mmengine {mmengine.__version__}, mmdet {mmdet.__version__}, '
      f'mmdet_detr_plugin {mmdet_detr_plugin.__version__}')
PY
}

py="$env_dir/bin/python"
if [ "$active" = 1 ]; then py=$(command -v python3 || command -v python) || die "--active: no python in the active environment"; fi
if [ "$which" = 1 ]; then echo "$py"; exit 0; fi

if command -v flock >/dev/null; then  # two commands of one checkout at once: the second waits, and finds everything there
  exec 8<"$root/tools/setup_env.sh"
  flock -n 8 || { say "another set-up of this checkout is running; waiting for it"; flock 8; }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_environment
write_constraints
install_torch
install_mmcv
install_packages
check
say "ready: $py"
