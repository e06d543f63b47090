"""Gradients of two ranks equal those of one process with the same global batch."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import distributed, multiprocessing

from mmdet_detr_plugin.engine import SyncNormStatsHook

from ..builders import build, detr_config, make_batch, randomize_norm_layers

WORLD_SIZE = 2


def global_batch(dtype: torch.dtype, counts: list[int]) -> dict:
    """Four images of several sizes in one padded size; the ranks take two each."""
    batch = make_batch([(64, 96), (48, 80), (96, 64), (96, 96)], counts)
    batch['batch_inputs'] = batch['batch_inputs'].to(dtype)
    for sample in batch['batch_data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    return batch


def build_model(dtype: torch.dtype, sync_cls_avg_factor: bool) -> torch.nn.Module:
    """The same weights on every rank; batch norm frozen, no dropout."""
    torch.manual_seed(0)
    model = build(
        detr_config(
            backbone=dict(norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False)),
            neck=dict(dropout=0.0),
            bbox_head=dict(sync_cls_avg_factor=sync_cls_avg_factor),
        )
    )
    randomize_norm_layers(model)
    model.to(dtype).train()
    return model


def gradient(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    losses = model(batch['batch_inputs'], batch['batch_data_samples'], mode='loss')
    getattr(model, 'module', model).parse_losses(losses)[0].backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def rank_gradients(rank: int, group_file: str, cases: list, out: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{group_file}', rank=rank, world_size=WORLD_SIZE)
    init_default_scope('mmdet')
    results = []
    for dtype, counts, sync_cls_avg_factor in cases:
        model = MMDistributedDataParallel(build_model(dtype, sync_cls_avg_factor), device_ids=None, broadcast_buffers=False)
        batch, mine = global_batch(dtype, counts), slice(2 * rank, 2 * rank + 2)
        results.append(gradient(model, {key: value[mine] for key, value in batch.items()}))
    torch.save(results, f'{out}.{rank}')
    torch.save(norm_stats(rank), f'{out}.norms.{rank}')
    distributed.destroy_process_group()


def norm_stats(rank: int) -> list[torch.Tensor]:
    """Statistics of a trained, an averaged (EMA) and a frozen batch norm, before and after SyncNormStatsHook."""

    class Norms(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.trained, self.frozen = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)

        def forward(self, inputs):
            return self.frozen(self.trained(inputs))

        def train(self, mode: bool = True) -> 'Norms':
            super().train(mode)
            self.frozen.eval()
            return self

    model = Norms().train()
    average = copy.deepcopy(model).eval()
    for number, norm in enumerate((model.trained, average.trained, model.frozen)):
        norm.running_mean.fill_(number + rank)
        norm.running_var.fill_(number + 2.0 * rank + 1)
    ema = EMAHook()
    ema.ema_model = SimpleNamespace(module=average)
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    SyncNormStatsHook().after_train_epoch(SimpleNamespace(model=wrapped, hooks=[ema]))
    return [stat for norm in (model.trained, average.trained, model.frozen) for stat in (norm.running_mean, norm.running_var)]


CASES = {
    'float64': (torch.float64, [3, 1, 0, 5], True),
    'float32': (torch.float32, [3, 1, 0, 5], True),
    'one rank without objects': (torch.float64, [4, 2, 0, 0], True),
    'no objects at all': (torch.float64, [0, 0, 0, 0], True),
    'each rank its own factor': (torch.float64, [3, 1, 0, 0], False),
}


@pytest.fixture(scope='module')
def gradients(tmp_path_factory) -> dict[str, list[torch.Tensor]]:
    """Gradients of each case on both ranks."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(rank_gradients, (str(folder / 'group'), list(CASES.values()), str(folder / 'out')), nprocs=WORLD_SIZE)
    ranks = [torch.load(folder / f'out.{rank}', weights_only=True) for rank in range(WORLD_SIZE)]
    norms = [torch.load(folder / f'out.norms.{rank}', weights_only=True) for rank in range(WORLD_SIZE)]
    return dict(zip(CASES, zip(*ranks)), norms=norms)


def difference(gradients: dict, case: str) -> float:
    dtype, counts, sync_cls_avg_factor = CASES[case]
    ours, theirs = gradients[case]
    assert torch.equal(ours, theirs) and torch.isfinite(ours).all()
    whole = gradient(build_model(dtype, sync_cls_avg_factor), global_batch(dtype, counts))
    assert whole.norm() > 1e-3
    return ((ours - whole).norm() / whole.norm()).item()


@pytest.mark.parametrize(
    'case, tolerance', [('float64', 1e-7), ('float32', 1e-4), ('one rank without objects', 1e-7), ('no objects at all', 1e-7)]
)
def test_gradients_of_two_ranks_equal_one_process(gradients, case, tolerance):
    assert difference(gradients, case) < tolerance


def test_class_weights_of_each_rank_differ_by_default_as_in_the_official_code(gradients):
    """The comparison is sharp enough to tell the two normalisations apart."""
    assert difference(gradients, 'each rank its own factor') > 1e-3


def test_all_ranks_get_the_average_of_trained_norm_statistics(gradients):
    for rank, stats in enumerate(gradients['norms']):
        means_and_vars = [stat.unique().tolist() for stat in stats]
        assert means_and_vars == [[0.5], [2.0], [1.5], [3.0], [2.0 + rank], [3.0 + 2 * rank]]
