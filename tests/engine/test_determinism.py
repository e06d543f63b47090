"""The same seed gives the same weights, bit for bit, whatever the number of workers."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_detr_plugin.models import transformer

from ..builders import make_batch
from ..conftest import ROOT
from ..models.test_several_ranks import aided_detr, build_model, detr, local_detr
from ..tools.test_resuming import assert_equal

MODELS = {
    'detr': dict(),
    'detr-aided': dict(
        training_aids=dict(
            groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=1),
            denoising=dict(type='mmdet_detr_plugin.DenoisingQueries', num_classes=4, jitter=dict(copies=2)),
        )
    ),
    'local-detr': dict(),
    'faster-rcnn': dict(),
}


def config(model: str, shapes_dir: Path, work: Path, workers: int) -> Config:
    """Two epochs of two iterations; dropout, flips and crops as in the configs."""
    (path,) = (ROOT / 'configs' / 'shapes').glob(f'{model}_r18-half_*.py')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        dict(
            model=MODELS[model],
            train_dataloader=dict(
                num_workers=workers, persistent_workers=False, dataset=dict(data_root=f'{shapes_dir}/', indices=8), batch_size=4
            ),
            train_cfg=dict(max_epochs=2),
            default_hooks=dict(checkpoint=dict(save_last=False, interval=10, save_best=None)),
            work_dir=str(work),
            log_level='ERROR',
            experiment_name=work.name,
        )
    )
    for part in ('val', 'test'):
        for key in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{part}_{key}'] = None
    return cfg


def state_after_training(cfg: Config) -> dict:
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert torch.are_deterministic_algorithms_enabled()
    return dict(model=runner.model.state_dict(), optimizer=runner.optim_wrapper.state_dict())


@pytest.mark.parametrize(
    'model, numbers_of_workers',
    [
        ('detr-aided', (4,)),
        ('local-detr', (0,)),
        *(pytest.param(model, (0, 1, 2, 4), marks=pytest.mark.slow) for model in MODELS),
    ],
)
def test_same_seed_gives_the_same_weights(model, numbers_of_workers, shapes_dir, tmp_path):
    expected = state_after_training(config(model, shapes_dir, tmp_path / 'first', workers=0))
    for workers in numbers_of_workers:
        got = state_after_training(config(model, shapes_dir, tmp_path / f'workers-{workers}', workers))
        assert_equal(got, expected, f'{workers} workers')


# aten's names of what torch.use_deterministic_algorithms refuses on GPUs (its documentation); ``cumsum`` of floating-point numbers
REFUSED = (
    ('avg_pool3d_backward', '_adaptive_avg_pool2d_backward', '_adaptive_avg_pool3d_backward', 'adaptive_max_pool2d_backward')
    + ('fractional_max_pool2d_backward', 'fractional_max_pool3d_backward', 'max_unpool2d', 'max_unpool3d')
    + ('upsample_linear1d_backward', 'upsample_bilinear2d_backward', 'upsample_bicubic2d_backward', 'upsample_trilinear3d_backward')
    + ('reflection_pad1d_backward', 'reflection_pad2d_backward', 'reflection_pad3d_backward', 'nll_loss2d_forward', 'nll_loss2d_backward')
    + ('grid_sampler_2d_backward', 'grid_sampler_3d_backward', '_ctc_loss_backward', 'put', 'put_', 'histc', 'bincount', 'median')
    + ('scatter_reduce', 'scatter_reduce_', 'kthvalue')
)


class Operations(TorchDispatchMode):
    """Names of all operations, and those that GPUs have no deterministic form of."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.refused = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.names.add(name)
        if name in REFUSED or (name in ('cumsum', 'cumsum_') and result.is_floating_point()):
            self.refused.add(name)
        return result


@pytest.mark.parametrize('model', [detr, aided_detr, local_detr])
def test_no_operation_lacks_a_deterministic_form_on_gpus(model, monkeypatch):
    """Fused attention has one that a training cannot ask for without refusing whatever has none."""
    monkeypatch.setattr(transformer, 'ANY_ORDER', frozenset({'cpu'}))
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = build_model(model(), torch.float32)
    batch = make_batch([(96, 160), (128, 90)], [3, 2])
    with Operations() as operations:
        total, _ = model.parse_losses(model.loss(**batch))
        total.backward()
    assert 'convolution_backward' in operations.names and operations.refused == set()
    assert not [name for name in operations.names if 'dot_product' in name or 'attention' in name]


def test_a_refused_operation_is_seen():
    with Operations() as operations:
        torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4, requires_grad=True), scale_factor=2, mode='bilinear').sum().backward()
        torch.ones(3).cumsum(0)
    assert operations.refused == {'upsample_bilinear2d_backward', 'cumsum'}
