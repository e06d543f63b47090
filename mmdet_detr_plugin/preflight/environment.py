"""What trainings run on: versions, compiled operations, GPU, memory, disk, processor cores."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from .config_facts import dict_at, whole
from .finding import ERROR, NOTE, WARNING, Finding, guarded

if TYPE_CHECKING:  # the pre-flight must run where mmengine is what is broken
    from mmengine.config import Config

PACKAGE = 'mmdet_detr_plugin'
SHOWN = ('torch', 'mmcv', 'mmdet', 'mmengine', 'numpy', 'scipy')
SET_UP = 'bash tools/setup_env.sh makes an environment that works'
GIB = 2**30
LEAST_MEMORY, LEAST_DISK, LEAST_SHARED = 2 * GIB, 5 * GIB, GIB // 4


def environment_findings(cfg: Config | None = None) -> list[Finding]:
    """This machine and this interpreter; with a config also its folder and its workers."""
    content = cfg.to_dict() if cfg is not None else {}
    checks = (
        (check_versions,),
        (check_operations,),
        (check_opencv,),
        (check_gpu,),
        (check_memory,),
        (check_disk, content),
        (check_workers, content),
    )
    return [finding for check, *args in checks for finding in guarded('environment', check, *args)]


def check_versions() -> list[Finding]:
    """Installed versions against the ranges of the installed package."""
    try:
        needed, python = requires(PACKAGE) or [], metadata(PACKAGE)['Requires-Python'] or ''
    except PackageNotFoundError:
        what = f'{PACKAGE} is not installed, so its version ranges are not known'
        return [Finding('environment', WARNING, what, f'pip install -e . in the checkout; {SET_UP}')]
    findings, versions = [], {}
    if not SpecifierSet(python).contains(platform.python_version()):
        what = f'Python is {platform.python_version()}, {PACKAGE} needs {python}'
        findings.append(Finding('environment', ERROR, what, f'use another interpreter; {SET_UP}'))
    for requirement in map(Requirement, needed):
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        try:
            versions[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            what = f'{requirement.name} is not installed, {PACKAGE} needs {requirement.specifier}'
            findings.append(Finding('environment', ERROR, what, f'pip install "{requirement}"; {SET_UP}'))
            continue
        if not requirement.specifier.contains(versions[requirement.name], prereleases=True):
            what = f'{requirement.name} is {versions[requirement.name]}, {PACKAGE} needs {requirement.specifier}'
            findings.append(Finding('environment', ERROR, what, f'pip install "{requirement}"; {SET_UP}'))
    if not findings:
        shown = ', '.join(f'{name} {versions[name]}' for name in SHOWN if name in versions)
        what = f'Python {platform.python_version()}, {shown}: within the ranges of {PACKAGE} {version(PACKAGE)}'
        findings.append(Finding('environment', NOTE, what, 'nothing to do; name these versions when you report a problem'))
    return findings


def check_operations() -> list[Finding]:
    """mmcv's compiled operations, which Faster R-CNN's pooling and NMS need."""
    import torch

    advice = (
        f'mmcv has no wheel for torch {torch.__version__}; tools/setup_env.sh compiles its operations once, for the torch that is there'
    )
    try:
        importlib.import_module('mmcv._ext')
        cuda = importlib.import_module('mmcv.ops').get_compiling_cuda_version()
    except ImportError as error:
        return [Finding('environment', ERROR, f"mmcv's compiled operations cannot be loaded: {error}", advice)]
    if torch.cuda.is_available() and cuda == 'not available':
        what = f"mmcv's operations are compiled without CUDA, torch has CUDA {torch.version.cuda}"
        return [Finding('environment', ERROR, what, f'RoIAlign and NMS stop on the GPU: compile mmcv where nvcc is; {advice}')]
    return []


def check_opencv() -> list[Finding]:
    """Whether damaged images are noticed."""
    import cv2

    if Version(cv2.__version__) >= Version('4.11'):
        return []
    what = f'OpenCV is {cv2.__version__}, which reads JPEG files that were cut off, the rest of the picture grey'
    return [Finding('environment', WARNING, what, 'install OpenCV 4.11 or later, which refuses them, and with it the training names them')]


def check_gpu() -> list[Finding]:
    """Name and memory of each GPU; without one, what that means."""
    import torch

    if not torch.cuda.is_available():
        build = 'torch is a CPU build' if torch.version.cuda is None else f'torch is built for CUDA {torch.version.cuda} but sees none'
        what = f'0 GPUs ({build}): everything runs on the processor, {torch.get_num_threads()} of {_cores()} cores'
        advice = 'enough for configs/shapes and configs/small (minutes to hours); trainings on COCO would take months: use a GPU for them'
        return [Finding('environment', NOTE, what, advice)]
    findings = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        what = f'GPU {number}: {torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free'
        severity, advice = NOTE, 'nothing to do; when it runs out, halve the batch size and add --auto-scale-lr'
        if free < total / 2:
            severity, advice = WARNING, 'other programs use it (nvidia-smi): speeds mean nothing, and memory may run out'
        findings.append(Finding('environment', severity, what, advice))
    return findings


def check_memory() -> list[Finding]:
    """Free memory, of the container where that is less, and the shared memory that workers hand batches over in."""
    free = _free_memory()
    findings = []
    if free is not None:
        is_low = free < LEAST_MEMORY
        advice = 'close other programs, use fewer workers and a smaller batch' if is_low else 'nothing to do'
        what = f'{free / GIB:.1f} GiB of memory are free'
        findings.append(Finding('environment', WARNING if is_low else NOTE, what, advice))
    shared = Path('/dev/shm')
    if shared.is_dir() and (size := shutil.disk_usage(shared).free) < LEAST_SHARED:
        what = f'/dev/shm has {size / 2**20:.0f} MiB free: workers stop with "bus error" when a batch does not fit'
        findings.append(Finding('environment', WARNING, what, 'start the container with --shm-size=8g or --ipc=host, or set num_workers=0'))
    return findings


def check_disk(cfg: dict) -> list[Finding]:
    """Free space where checkpoints will be written."""
    folder = Path(cfg.get('work_dir') or 'work_dirs').absolute()
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    findings = []
    if not os.access(place, os.W_OK):
        what = f'{place} cannot be written to: no checkpoint could be saved'
        findings.append(Finding('environment', ERROR, what, 'choose another folder with --work-dir'))
    is_low = free < LEAST_DISK
    advice = 'a checkpoint of DETR R50 with its optimiser takes 0.5 GiB: keep fewer (max_keep_ckpts) or choose another --work-dir'
    what = f'{free / GIB:.1f} GiB of disk are free in {place}'
    return [*findings, Finding('environment', WARNING if is_low else NOTE, what, advice if is_low else 'nothing to do')]


def check_workers(cfg: dict) -> list[Finding]:
    """Processes that load data against processor cores."""
    import torch

    cores = _cores()
    workers = whole(dict_at(cfg, 'train_dataloader'), 'num_workers', 0)
    if workers > cores:
        what = f'train_dataloader.num_workers is {workers}, there are {cores} cores'
        return [Finding('environment', WARNING, what, f'set num_workers to {max(1, cores - 1)} or less: more only wait for each other')]
    if cfg and workers == 0 and torch.cuda.is_available():
        what = f'train_dataloader.num_workers is 0: the GPU waits while images are loaded, {cores} cores are there'
        return [Finding('environment', NOTE, what, f'set num_workers to {min(4, cores)} and persistent_workers=True')]
    if torch.get_num_threads() > cores:
        what = f'torch uses {torch.get_num_threads()} threads on {cores} cores'
        return [Finding('environment', WARNING, what, f'export OMP_NUM_THREADS={cores}')]
    return []


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _free_memory() -> int | None:
    """Bytes that a program can still have; None where the system does not say."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return None
    group = Path('/sys/fs/cgroup')  # of a container
    try:
        limit, used = ((group / name).read_text().strip() for name in ('memory.max', 'memory.current'))
        return min(free, int(limit) - int(used)) if limit != 'max' else free
    except (OSError, ValueError):
        return free
