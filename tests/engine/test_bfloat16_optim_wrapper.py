"""bfloat16 training on CPUs, for DETR, LocalDETR and a detector with mmcv's operations."""

import copy
import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from ..builders import make_batch
from ..conftest import ROOT

CONFIGS = ('detr_r18-half_1xb4-10e_shapes', 'local-detr_r18-half_1xb4-10e_shapes', 'faster-rcnn_r18-half_fpn_1xb4-10e_shapes')
# of LocalDETR, whose selected locations can change with the last digit, what does not hang on them
COMPARED = {
    'detr': ('loss_cls', 'loss_bbox'),
    'local-detr': ('dense.loss_cls', 'dense.loss_iou'),
    'faster-rcnn': ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'),
}


def propose(model, proposals: list) -> None:
    """Let the model's second stage get these proposals; where there are none yet, its own first ones become them.

    Rounding changes which regions are proposed, and with them the losses of the second stage.
    """
    original = model.rpn_head.loss_and_predict

    def loss_and_predict(*args, **kwargs):
        losses, found = original(*args, **kwargs)
        if not proposals:
            proposals.extend(copy.deepcopy(found))
        return losses, copy.deepcopy(proposals)

    model.rpn_head.loss_and_predict = loss_and_predict


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_close_to_float32_and_keeps_weights_and_losses_in_it(name):
    cfg = Config.fromfile(ROOT / 'configs' / 'shapes' / f'{name}.py')
    if 'neck' in cfg.model and 'dropout' in cfg.model.neck:
        cfg.model.neck.dropout = 0.0
    losses, proposals = {}, []
    for kind in ('OptimWrapper', 'mmdet_detr_plugin.BFloat16OptimWrapper'):
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
        if hasattr(model, 'rpn_head'):
            propose(model, proposals)
        wrapper = build_optim_wrapper(model, dict(type=kind, optimizer=dict(type='SGD', lr=0.0)))
        batch = make_batch([(128, 128)] * 2, [3, 2])
        for sample in batch['batch_data_samples']:
            sample.gt_instances.labels %= 4
        products = set()
        hook = model.backbone.register_forward_hook(
            lambda module, inputs, outputs, seen=products: seen.update(out.dtype for out in outputs)
        )
        with wrapper.optim_context(model):
            total, log = model.parse_losses(model.loss(**batch))
        wrapper.update_params(total)
        hook.remove()
        assert products == {torch.bfloat16 if 'BFloat16' in kind else torch.float32}
        losses[kind] = {key: float(value) for key, value in log.items() if 'loss' in key}
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and total.dtype == torch.float32
    exact, ours = losses.values()
    for key in ('loss', *COMPARED[name.split('_')[0]]):
        assert math.isfinite(ours[key]) and ours[key] == pytest.approx(exact[key], rel=0.1, abs=0.02), key
    copy.deepcopy(model)  # hooks included
