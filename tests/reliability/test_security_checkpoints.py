"""No checkpoint runs code: real attack files through every way in which the plugin, mmengine and mmdet's tools read one."""

import http.server
import json
import os
import runpy
import struct
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmdet_detr_plugin.checkpoints.reading import read_checkpoint
from mmdet_detr_plugin.models import PretrainedBackbone

from ..conftest import ROOT
from ..engine.tiny_training import TinyModel, tiny_runner
from .attacks import KINDS, PLACES, checkpoint

CONFIG = ROOT / 'configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py'
MMDET_TOOLS = Path(mmdet.__path__[0]) / '.mim' / 'tools'
REFUSED = r'and was not opened, because such objects can run code|is truncated or no checkpoint'


@pytest.fixture(autouse=True)
def unsafe_environment(monkeypatch):
    """What users set to get around refused files: with it torch's default opens everything."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')


@pytest.fixture
def mark(tmp_path):
    """The file that an attack makes; it must not be there at the end."""
    path = tmp_path / 'ran'
    yield path
    assert not path.exists(), 'the code in the file was executed'


def test_attack_files_are_real(tmp_path):
    for kind in KINDS:
        mark = tmp_path / f'ran_{kind}'
        file = checkpoint(tmp_path / f'{kind}.pth', mark, kind)
        try:
            torch.load(file)  # as mmengine does, under the variable above
        except Exception:
            assert kind in ('tar', 'pickle')  # broken archives run first and fail then
        assert mark.exists()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('place', PLACES)
def test_packed_and_hidden_in_any_way_it_does_not_run(kind, place, tmp_path, mark):
    file = checkpoint(tmp_path / 'evil.pth', mark, kind, place)
    for read in (read_checkpoint, lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu')):
        with pytest.raises(ValueError, match=REFUSED) as error:
            read(file)
        assert str(file) in str(error.value)
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1' and 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


@pytest.mark.parametrize(
    'load',
    [
        lambda file: load_checkpoint(nn.Linear(1, 1), file),
        lambda file: init_detector(str(CONFIG), file, device='cpu'),
        lambda file: DetInferencer(str(CONFIG), file, device='cpu'),
        lambda file: tiny_runner(Path(file).parent / 'a', load_from=file, epochs=1).train(),
        lambda file: tiny_runner(Path(file).parent / 'b', load_from=file, resume=True, epochs=1).train(),
        lambda file: tiny_runner(Path(file).parent / 'c', load_from=file, model=TinyModel()).val(),
    ],
    ids=['load_checkpoint', 'init_detector', 'DetInferencer', 'load_from', 'resume', 'val'],
)
def test_every_way_in_refuses(load, tmp_path, mark):
    with pytest.raises(ValueError, match=REFUSED):
        load(str(checkpoint(tmp_path / 'evil.pth', mark)))


def test_backbone_weights_do_not_run(tmp_path, mark):
    with pytest.raises(RuntimeError, match='evil.pth could not be read'):
        PretrainedBackbone(checkpoint=str(checkpoint(tmp_path / 'evil.pth', mark)))(nn.Linear(1, 1))


@pytest.mark.parametrize(
    'tool, args',
    [
        ('predict.py', [CONFIG, 'evil.pth', ROOT / 'configs/shapes/demo.png']),
        ('export_onnx.py', [CONFIG, 'evil.pth', 'out.onnx']),
        ('check_onnx.py', [CONFIG, 'evil.pth', 'out.onnx']),
        ('convert_checkpoint.py', ['evil.pth', 'out.pth']),
        ('visualize_attention.py', [CONFIG, 'evil.pth', ROOT / 'configs/shapes/demo.png']),
    ],
)
def test_command_lines_refuse_and_write_nothing(tool, args, tmp_path, mark, monkeypatch):
    checkpoint(tmp_path / 'evil.pth', mark)
    (tmp_path / 'out.onnx').write_bytes(b'kept')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    message = 'no ONNX file' if tool == 'check_onnx.py' and 'ONNX' in str(exit.value.code) else 'was not opened'
    assert str(exit.value.code).startswith('error:') and message in exit.value.code
    assert {path.name for path in tmp_path.iterdir()} == {'evil.pth', 'out.onnx'} and (tmp_path / 'out.onnx').read_bytes() == b'kept'


@pytest.fixture
def address(tmp_path, monkeypatch):
    """The folder ``served`` under an address of this machine."""
    (tmp_path / 'served').mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=tmp_path / 'served'))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_addresses_are_read_safely_too(address, tmp_path, mark, monkeypatch):
    """torch.hub opens what it downloads with ``weights_only=False``, with and without the variable."""
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    checkpoint(tmp_path / 'served' / 'evil.pth', mark)
    with pytest.raises(ValueError, match='evil.pth holds more than tensors'):
        load_checkpoint(nn.Linear(1, 1), f'{address}/evil.pth')
    torch.save(dict(state_dict=nn.Linear(1, 1).state_dict()), tmp_path / 'served' / 'good.pth')
    assert set(load_checkpoint(nn.Linear(1, 1), f'{address}/good.pth')['state_dict']) == {'weight', 'bias'}


def test_other_users_of_torch_load_are_left_alone(tmp_path):
    torch.save(dict(path=Path('x')), tmp_path / 'objects.pth')
    assert torch.load(tmp_path / 'objects.pth')['path'] == Path('x')
    with pytest.raises(ValueError, match='can run code'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'objects.pth'))
    assert torch.load(tmp_path / 'objects.pth')['path'] == Path('x')


def test_safetensors_with_a_huge_header_is_refused(tmp_path):
    for length in (2**40, 2**63, 90 << 20):
        (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', length) + b'{' + b' ' * 100)
        with pytest.raises(ValueError, match='x.safetensors is truncated or no checkpoint'):
            read_checkpoint(tmp_path / 'x.safetensors')
    header = json.dumps({'a': dict(dtype='F32', shape=[2**40], data_offsets=[0, 2**42])}).encode()
    (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', len(header)) + header)
    with pytest.raises(ValueError, match='x.safetensors is truncated'):
        read_checkpoint(tmp_path / 'x.safetensors')


FRESH = """
import sys
from mmengine.config import Config
from mmengine.runner.checkpoint import _load_checkpoint
Config.fromfile(sys.argv[1])
_load_checkpoint(sys.argv[2])
"""


def test_reading_a_config_is_enough(tmp_path, mark):
    """In a new process, where nothing of the plugin was imported before: ``DetInferencer`` loads weights before it builds the model."""
    file = checkpoint(tmp_path / 'evil.pth', mark)
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', FRESH, CONFIG, file], capture_output=True, text=True)
    assert done.returncode == 1 and 'ValueError' in done.stderr and 'was not opened' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('config', [CONFIG.name, 'faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py'])
@pytest.mark.parametrize('tool', ['test.py', 'train.py --resume', 'train.py load_from', 'train.py last_checkpoint'])
def test_mmdets_tools_refuse(tool, config, shapes_dir, tmp_path, mark):
    work = tmp_path / 'work'
    work.mkdir()
    file = checkpoint(work / 'epoch_1.pth', mark)
    (work / 'last_checkpoint').write_text(str(file))
    options = {'test.py': [file], 'train.py --resume': ['--resume', file], 'train.py last_checkpoint': ['--resume']}.get(tool, [])
    load_from = [f'load_from={file}'] if tool == 'train.py load_from' else []
    changes = [f'{part}_dataloader.dataset.data_root={shapes_dir}/' for part in ('train', 'val', 'test')]
    changes += [f'{part}_evaluator.ann_file={shapes_dir}/annotations/test.json' for part in ('val', 'test')]
    command = [sys.executable, '-W', 'ignore', MMDET_TOOLS / tool.split()[0], ROOT / 'configs/shapes' / config, *options]
    command += ['--work-dir', work, '--cfg-options', *changes, *load_from]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and 'was not opened, because such objects can run code' in done.stderr, done.stderr[-2000:]
