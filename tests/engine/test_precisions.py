"""Precisions train to the same AP, within what another seed changes."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_detr_plugin.datasets.shapes import write_split

from ..conftest import ROOT

SEEDS = (0, 1)
EPOCHS, TRAIN_IMAGES, TEST_IMAGES = 4, 300, 100
PRECISIONS = {'float32': 'OptimWrapper', 'bfloat16': 'mmdet_detr_plugin.BFloat16OptimWrapper'}
if torch.cuda.is_available():
    PRECISIONS['float16'] = 'AmpOptimWrapper'  # with loss scaling; mmengine has it for GPUs only


def average_precision(data_root, work_dir, wrapper: str, seed: int) -> float:
    """AP of LocalDETR on held-out images after a short schedule; every logged loss is finite."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py')
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{split}_dataloader'].dataset.data_root = f'{data_root}/'
    cfg.val_evaluator.ann_file = f'{data_root}/annotations/test.json'
    cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=EPOCHS)
    cfg.param_scheduler[0].end = 50
    cfg.param_scheduler[1].update(end=EPOCHS, milestones=[EPOCHS - 1])
    cfg.optim_wrapper.type, cfg.randomness.seed = wrapper, seed
    cfg.work_dir, cfg.log_level, cfg.visualizer.name = str(work_dir), 'ERROR', str(work_dir)
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert all(map(math.isfinite, scalars['train/loss'].data[0])) and runner.iter == EPOCHS * math.ceil(TRAIN_IMAGES / 4)
    return scalars['val/coco/bbox_mAP'].current()


@pytest.mark.slow
def test_precisions_train_to_the_same_average_precision(tmp_path):
    """Two seeds of each precision, about 4 minutes on 2 cores. NaN would stop the training (NonFiniteHook)."""
    write_split(tmp_path / 'shapes', seed=0, split='train', count=TRAIN_IMAGES)
    write_split(tmp_path / 'shapes', seed=0, split='test', count=TEST_IMAGES)
    found = {
        name: [average_precision(tmp_path / 'shapes', tmp_path / f'{name}-{seed}', wrapper, seed) for seed in SEEDS]
        for name, wrapper in PRECISIONS.items()
    }
    print('AP by precision and seed:', found)
    exact = found.pop('float32')
    assert min(exact) > 0.05
    for name, values in found.items():
        spread = max(max(runs) - min(runs) for runs in (exact, values))
        assert abs(sum(values) - sum(exact)) / len(SEEDS) <= max(spread, 0.03), (name, values, exact)
