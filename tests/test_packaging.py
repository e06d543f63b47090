"""What a wheel holds, and that it works far from the checkout."""

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmdet_detr_plugin
from mmdet_detr_plugin.config_files import config_names, config_path

from .conftest import ROOT

SHIPPED = ('configs', 'mmdet_detr_plugin', 'tools', 'setup.py', 'README.md', 'LICENSE', 'MANIFEST.in', 'pyproject.toml')


def run(*command, **kwargs) -> str:
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, so that nothing is left in the checkout and nothing old gets in."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / 'source' / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
        else:
            shutil.copy(ROOT / name, folder / 'source' / name)
    run(sys.executable, 'setup.py', '-q', 'sdist', cwd=folder / 'source')  # a wheel from the source package must be whole too
    source = next((folder / 'source' / 'dist').glob('*.tar.gz'))
    options = ['--no-deps', '--no-build-isolation', '--disable-pip-version-check', '-q', '-w', folder]
    run(sys.executable, '-m', 'pip', 'wheel', source, *options)
    return next(folder.glob('*.whl'))


def test_wheel_holds_package_configs_and_tools(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    files = {path.relative_to(ROOT) for folder in ('configs', 'tools') for path in (ROOT / folder).rglob('*.py')}
    files |= {path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.yml')}
    expected = {f'mmdet_detr_plugin/.mim/{path.as_posix()}' for path in files}
    package = ROOT / 'mmdet_detr_plugin'
    expected |= {path.relative_to(ROOT).as_posix() for path in package.rglob('*.py') if '.mim' not in path.parts}
    expected |= {path.relative_to(ROOT).as_posix() for path in package.rglob('templates/*')}
    assert packed == expected and len(files) > 30


def test_wheel_states_its_needs(wheel):
    name = f'mmdet_detr_plugin-{mmdet_detr_plugin.__version__}.dist-info/METADATA'
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(name))
    assert set(metadata['Requires-Python'].split(',')) == {'>=3.11', '<3.13'}
    assert set(metadata.get_all('Provides-Extra')) == {'tests', 'hf', 'onnx'}
    needs = {need.split('<')[0].split('>')[0] for need in metadata.get_all('Requires-Dist') if 'extra' not in need}
    assert needs >= {'torch', 'mmengine', 'mmcv', 'mmdet', 'scipy', 'pycocotools'}
    assert metadata['License'] == 'Apache-2.0' or metadata['License-Expression'] == 'Apache-2.0'


def test_installed_wheel_trains_from_another_folder(wheel, shapes_dir, tmp_path):
    installed = tmp_path / 'site'
    run(sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--disable-pip-version-check', '--target', installed, wheel)
    environ = {**os.environ, 'PYTHONPATH': str(installed), 'PYTHONWARNINGS': 'ignore'}
    path = run(sys.executable, '-m', 'mmdet_detr_plugin', 'detr_r18-half_1xb4-10e_shapes.py', cwd=tmp_path, env=environ).strip()
    assert path == str(installed / 'mmdet_detr_plugin' / '.mim' / 'configs' / 'shapes' / 'detr_r18-half_1xb4-10e_shapes.py')
    (tmp_path / 'mine.py').write_text(f"""_base_ = __import__('mmdet_detr_plugin').config_path('detr_r18-half_1xb4-10e_shapes.py')
data_root = {str(shapes_dir) + '/'!r}
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/test.json')
train_cfg = dict(max_epochs=1, val_interval=1)
""")
    mmdet_tools = run(sys.executable, '-c', 'import mmdet; print(mmdet.__path__[0])', env=environ).splitlines()[-1] + '/.mim/tools'
    output = run(sys.executable, f'{mmdet_tools}/train.py', 'mine.py', cwd=tmp_path, env=environ)
    assert 'coco/bbox_mAP' in output and (tmp_path / 'work_dirs' / 'mine' / 'epoch_1.pth').is_file()
    assert str(ROOT) not in output.replace(sys.prefix, '')


@pytest.mark.parametrize('name', ['detr/detr_r50_8xb2-150e_coco.py', 'detr_r50_8xb2-150e_coco.py'])
def test_configs_elsewhere_can_inherit_shipped_ones(tmp_path, name):
    (tmp_path / 'mine.py').write_text(f"_base_ = [__import__('mmdet_detr_plugin').config_path({name!r})]\ntrain_cfg = dict(max_epochs=3)\n")
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.type == 'mmdet_detr_plugin.DETR' and cfg.train_cfg.max_epochs == 3


def test_every_config_has_a_name_of_its_own():
    names = [Path(name).name for name in config_names()]
    assert len(names) == len(set(names)) > 20


@pytest.mark.parametrize('name', ['detr_r50_8xb2-150e.py', 'detr', '', '../setup.py'])
def test_unknown_config_is_answered_with_near_names(name):
    with pytest.raises(FileNotFoundError, match=r'python -m mmdet_detr_plugin lists all'):
        config_path(name)


@pytest.mark.slow
def test_wheel_in_a_new_environment_with_mim(wheel, tmp_path):
    """As a user installs it: a new environment, the wheel with its dependencies, and openmim beside it without its own.

    Takes a minute, more where pip has to download. mmcv's wheel is the one that tools/setup_env.sh has built.
    """
    cache, tag = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')), f'py{sys.version_info[0]}{sys.version_info[1]}'
    built = sorted(cache.glob(f'mmdet_detr_plugin/mmcv2.1.0-*-{tag}-torch{torch.__version__}-*/mmcv-*.whl'))
    if not built:
        pytest.skip('needs the mmcv wheel that tools/setup_env.sh builds')
    environ = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'VIRTUAL_ENV')} | {'PYTHONWARNINGS': 'ignore'}
    run(sys.executable, '-m', 'venv', tmp_path / 'env')
    python, mim = tmp_path / 'env' / 'bin' / 'python', tmp_path / 'env' / 'bin' / 'mim'
    pip = [python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-c', ROOT / 'tools' / 'versions.txt']
    run(*pip, built[-1], wheel, cwd=tmp_path, env=environ)
    run(*pip, '--no-deps', 'openmim==0.3.9', cwd=tmp_path, env=environ)  # one of its dependencies pins setuptools 60.2
    run(*pip, 'click', 'colorama', 'model-index', 'pandas', 'requests', 'rich', 'tabulate', cwd=tmp_path, env=environ)

    run(mim, 'run', 'mmdet_detr_plugin', 'make_shapes', 'data/shapes', '--train', 16, '--test', 8, cwd=tmp_path, env=environ)
    config = run(python, '-m', 'mmdet_detr_plugin', 'detr_r18-half_1xb4-10e_shapes.py', cwd=tmp_path, env=environ).strip()
    assert config.startswith(str(tmp_path))
    output = run(mim, 'train', 'mmdet', config, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1', cwd=tmp_path, env=environ)
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file(), output[-3000:]
