"""A run that was killed and resumed ends as the run that was not, bit for bit, through mmdet's unmodified train.py."""

import random
import re
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from ..conftest import ROOT
from .processes import running
from .test_mmdet_tools import CONFIGS, MMDET_TOOLS, MODELS

EPOCHS, BATCH_SIZE = 4, 4


def write_config(folder: Path, base: str, shapes_dir: Path, workers: int, epochs: int = EPOCHS, more: str = '') -> Path:
    """Everything that has state: dropout, flips, warm-up, EMA, a best checkpoint, a limit on kept checkpoints; and ``more`` settings."""
    config = folder / Path(base).name
    config.write_text(f"""_base_ = {str(ROOT / base)!r}
data_root = {str(shapes_dir) + '/'!r}
loader = dict(num_workers={workers}, persistent_workers={workers > 0}, dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size={BATCH_SIZE}, **loader)
val_dataloader = loader
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/test.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs={epochs}, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP', rule='greater'))
custom_hooks = _base_.custom_hooks + [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.01, priority=49)]
{more}
""")
    return config


def command(config: Path, work: Path, *options) -> list:
    return [sys.executable, '-W', 'ignore', MMDET_TOOLS / 'train.py', config, '--work-dir', work, *options]


def train(config: Path, work: Path, *options) -> str:
    with running(command(config, work, *options), tempfile.gettempdir(), work / 'output.txt') as training:
        return training.finish()


def kill_at_a_random_moment(config: Path, work: Path) -> None:
    """Somewhere between the first iteration of the second epoch and the third of the last; also between iterations and in validation."""
    epoch, iteration, delay = random.randint(2, EPOCHS), random.randint(1, 4), random.uniform(0, 2)
    iteration = 1 if epoch == EPOCHS else iteration  # else the run may end before the kill
    pattern = re.compile(rf'Epoch\(train\) +\[{epoch}\]\[ *{iteration}/4\].* time: ([\d.]+)')
    with running(command(config, work), tempfile.gettempdir(), work / 'output.txt') as training:
        training.wait_for(lambda: pattern.search(training.output()))
        delay *= float(pattern.search(training.output())[1])
        print(f'killed {delay:.2f} s after iteration {iteration} of epoch {epoch}')
        time.sleep(delay)
        assert training.process.poll() is None
        training.kill()


def assert_same_end(first: Path, second: Path, epochs: int = EPOCHS) -> None:
    a, b = (torch.load(work / f'epoch_{epochs}.pth', weights_only=True) for work in (first, second))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(a[key], b[key], key)
    for key in ('best_score', 'epoch', 'iter', 'keep_ckpt_ids'):
        assert a['message_hub']['runtime_info'][key] == b['message_hub']['runtime_info'][key], key
    kept = [sorted(path.name for path in work.glob('*.pth*')) for work in (first, second)]
    assert kept[0] == kept[1] and len(kept[0]) == 3 and f'epoch_{epochs}.pth' in kept[0]
    best = [torch.load(next(work.glob('best_*.pth')), weights_only=True)['state_dict'] for work in (first, second)]
    assert_equal(best[0], best[1], 'best')


def assert_equal(a, b, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, items in enumerate(zip(a, b)):
            assert_equal(*items, f'{where}[{index}]')
    else:
        assert a == b, where


@pytest.fixture(scope='module', params=MODELS)
def straight(request, shapes_dir, tmp_path_factory):
    """A run in one go, its data loaded by the main process."""
    folder = tmp_path_factory.mktemp(f'straight-{request.param}')
    train(write_config(folder, CONFIGS[request.param], shapes_dir, workers=0), folder / 'run')
    return request.param, folder / 'run'


def test_killed_and_resumed_run_ends_as_the_straight_one(straight, shapes_dir, tmp_path):
    model, reference = straight
    config, work = write_config(tmp_path, CONFIGS[model], shapes_dir, workers=2), tmp_path / 'run'
    kill_at_a_random_moment(config, work)
    assert 'resumed epoch' in train(config, work, '--resume')
    assert_same_end(reference, work)
