"""Each fault of an environment, planted by what the checks ask: severity and words."""

import importlib
import importlib.metadata
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_detr_plugin.preflight import ERROR, NOTE, WARNING, Finding, environment, environment_findings, findings, text
from mmdet_detr_plugin.preflight.finding import guarded, listed, part

from .planting import saying

Usage = namedtuple('Usage', 'total used free')


def found(severity, *words, cfg=None):
    all_found = environment_findings(cfg)
    matches = saying(all_found, *words)
    assert len(matches) == 1, [item.finding for item in all_found]
    assert matches[0].severity == severity and matches[0].area == 'environment' and matches[0].advice


def test_this_environment_has_no_error_and_names_its_versions():
    assert not [item for item in environment_findings() if item.severity == ERROR]
    found(NOTE, f'torch {importlib.metadata.version("torch")}', 'mmcv 2.', 'mmdet 3.', 'within the ranges of mmdet_detr_plugin')
    assert {item.area for item in findings()} == {'environment'}


@pytest.mark.parametrize(
    'package, installed, words',
    [
        ('mmcv', '2.2.0', ['mmcv is 2.2.0', '<2.2.0', 'pip install "mmcv', 'setup_env.sh']),
        ('torch', '2.1.0+cu118', ['torch is 2.1.0+cu118', '>=2.6']),
        ('scipy', None, ['scipy is not installed', '>=1.11']),
    ],
)
def test_versions_outside_of_the_installed_packages_ranges(monkeypatch, package, installed, words):
    real = environment.version

    def version(name):
        if name != package:
            return real(name)
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(environment, 'version', version)
    found(ERROR, *words)


def test_an_opencv_that_reads_damaged_images_is_named(monkeypatch):
    import cv2

    monkeypatch.setattr(cv2, '__version__', '4.10.0')
    found(WARNING, 'OpenCV is 4.10.0', 'cut off', 'OpenCV 4.11 or later')


def test_ranges_are_those_of_the_installed_package(monkeypatch):
    monkeypatch.setattr(environment, 'requires', lambda name: ['numpy>=77', 'nothing-of-this-name>=1; extra == "tests"'])
    found(ERROR, 'numpy is', '>=77')
    assert not saying(environment_findings(), 'nothing-of-this-name')


def test_another_python_and_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(environment.platform, 'python_version', lambda: '3.9.1')
    found(ERROR, 'Python is 3.9.1', '>=3.11')

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment, 'requires', missing)
    found(WARNING, 'mmdet_detr_plugin is not installed', 'pip install -e .')


def test_compiled_operations_that_are_missing_or_without_cuda(monkeypatch):
    class Operations:
        get_compiling_cuda_version = staticmethod(lambda: 'not available')

    monkeypatch.setattr(environment.importlib, 'import_module', lambda name: Operations)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    found(ERROR, 'compiled without CUDA', 'nvcc')

    def refuse(name):
        raise ImportError('libtorch.so: undefined symbol')

    monkeypatch.setattr(environment.importlib, 'import_module', refuse)
    found(ERROR, 'cannot be loaded: libtorch.so: undefined symbol', torch.__version__, 'setup_env.sh')


def test_a_gpu_is_named_with_its_memory_and_its_absence_with_what_it_means(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    found(NOTE, '0 GPUs', f'{torch.get_num_threads()} of', 'configs/small', 'COCO')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda number: f'Card {number}')
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda number: ((20 - 15 * number) * 2**30, 24 * 2**30))
    found(NOTE, 'GPU 0: Card 0, 20.0 of 24.0 GiB free')
    found(WARNING, 'GPU 1: Card 1, 5.0 of 24.0 GiB free', 'other programs')


def test_little_memory_disk_and_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, '_free_memory', lambda: 2**30)
    found(WARNING, '1.0 GiB of memory', 'fewer workers')
    monkeypatch.setattr(shutil, 'disk_usage', lambda place: Usage(2**40, 2**40, 64 * 2**20))
    cfg = Config(dict(work_dir=str(tmp_path / 'not' / 'yet')))
    found(WARNING, '0.1 GiB of disk', str(tmp_path), 'max_keep_ckpts', cfg=cfg)
    found(WARNING, '/dev/shm has 64 MiB', 'bus error', 'num_workers=0')
    monkeypatch.setattr(os, 'access', lambda place, mode: False)
    found(ERROR, f'{tmp_path} cannot be written to', cfg=cfg)


def test_memory_of_a_container_counts_where_it_is_less(monkeypatch):
    files = {'/proc/meminfo': 'MemTotal: 9 kB\nMemAvailable: 4000 kB\n', '/sys/fs/cgroup/memory.max': '900000\n'}
    files['/sys/fs/cgroup/memory.current'] = '400000\n'
    monkeypatch.setattr(Path, 'read_text', lambda path: files[str(path)])
    assert environment._free_memory() == 500_000
    files['/sys/fs/cgroup/memory.max'] = 'max\n'
    assert environment._free_memory() == 4000 * 1024


def test_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(environment, '_cores', lambda: 4)
    found(WARNING, 'num_workers is 9, there are 4 cores', 'set num_workers to 3', cfg=Config(dict(train_dataloader=dict(num_workers=9))))
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 64)
    found(WARNING, '64 threads on 4 cores', 'OMP_NUM_THREADS=4')


def test_a_check_that_fails_is_a_finding():
    def check_something_odd(number):
        return 1 / number

    (finding,) = guarded('data', check_something_odd, 0)
    assert finding.severity == WARNING and 'the check "something odd" was not made: ZeroDivisionError' in finding.finding


def test_text_is_grouped_counted_and_marked_by_words():
    shown = text([Finding('recipe', NOTE, 'n', 'x'), Finding('data', WARNING, 'w', 'y'), Finding('data', ERROR, 'e', 'z')])
    assert [line.strip() for line in shown.splitlines()] == [
        *('environment', 'nothing found', '', 'data', 'ERROR    e', '-> z', 'WARNING  w', '-> y', '', 'recipe', 'NOTE     n', '-> x', ''),
        '1 error, 1 warning, 1 note',
    ]
    assert text([], ['environment']).endswith('0 errors, 0 warnings, 0 notes')


def test_findings_are_those_of_the_report():
    finding = Finding('data', NOTE, 'a', 'b')
    assert json.loads(json.dumps(finding.as_dict())) == dict(area='data', severity='note', finding='a', advice='b')


def test_numbers_and_lists_for_people():
    assert part(3, 160, 'images') == '3 of 160 images (1.9 %)'
    assert part(1, 1, 'images') == '1 of 1 images' and part(0, 0, 'images') == '0 of 0 images'
    assert listed(['a', 'b', 'c'], most=2) == "'a', 'b' and 1 more"
