"""mmengine's ``compile=True``, with a runner and a shipped config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ..conftest import ROOT


@pytest.mark.slow
def test_whole_training_step_compiles_in_a_runner(shapes_dir, tmp_path):
    """Optimiser and scipy included; without the hook, torch's compiler stops in the optimiser."""
    torch._dynamo.reset()
    cfg = Config.fromfile(ROOT / 'configs' / 'shapes' / 'detr_r18-half_1xb4-10e_shapes.py')
    # small, because the compiler takes its time for every parameter
    cfg.model.backbone.update(type='mmdet_detr_plugin.FoldedResNet', base_channels=8, stem_channels=8, num_stages=1, out_indices=(0,))
    cfg.model.backbone.update(strides=(1,), dilations=(1,))
    cfg.model.neck.update(in_channels=8, num_encoder_layers=1, num_decoder_layers=1)
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='Resize', scale=(64, 64)))
    cfg.train_dataloader.dataset.data_root = f'{shapes_dir}/'
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.param_scheduler = None  # every new rate would be compiled anew
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.compile = dict(backend='eager')
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.bbox_head.named_parameters()}
    runner.train()
    assert runner.iter == 4
    assert all(not torch.equal(value, before[name]) for name, value in runner.model.bbox_head.named_parameters())
