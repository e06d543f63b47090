"""Gradients of several ranks equal those of one process with the same global batch; and no rank ever waits for another in vain."""

import copy
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import distributed, multiprocessing

from mmdet_detr_plugin.engine import SyncNormStatsHook

from ..builders import build, detr_config, make_batch, randomize_norm_layers
from .local_detr.test_detector import config as local_detr_config
from .panoptic.builders import panoptic_batch, panoptic_config, panoptic_local_config
from .training_aids.test_training_aids import AIDS, HEADS

SIZES = [(96, 160), (80, 128), (160, 96), (160, 160), (96, 96), (160, 80), (128, 128), (64, 160)]
COUNTS = [3, 1, 0, 0, 5, 2, 1, 4]  # one of four ranks has no object, and one an image with so many that it gets fewer jittered copies
NO_OBJECTS = [0] * 8
FEW_OBJECTS = [0, 0, 0, 1, 0, 0, 0, 0]  # less than one for each rank
SECONDS = 200  # for all cases of all ranks; a hang ends here
BACKBONE = dict(base_channels=16, stem_channels=16, norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
GROUP_NORM = dict(type='GN', num_groups=4)
JITTER = dict(copies=3, max_queries=12)


def detr(sync_cls_avg_factor: bool = True) -> dict:
    neck = dict(in_channels=128, dropout=0.0)
    return detr_config(backbone=BACKBONE, neck=neck, bbox_head=dict(sync_cls_avg_factor=sync_cls_avg_factor))


def aided_detr() -> dict:
    """Auxiliary layers, a dense head, groups and denoising."""
    config = detr()
    config['neck'].update(reference_points='learned')
    dense = dict(AIDS['dense'], heads=dict(fcos=dict(HEADS['fcos'], norm_cfg=GROUP_NORM)))
    denoising = dict(AIDS['denoising'], jitter=JITTER)
    return config | dict(training_aids=dict(dense=dense, groups=AIDS['groups'], denoising=denoising))


def local_detr() -> dict:
    config = local_detr_config(norm_cfg=GROUP_NORM, jitter=dict(JITTER, type='mmdet_detr_plugin.JitteredBoxes'))
    config['neck'].update(norm_cfg=GROUP_NORM)
    config['backbone'].update(BACKBONE)
    return config


def panoptic_detr() -> dict:
    neck, mask_head = dict(in_channels=128, dropout=0.0), dict(in_channels=(16, 32, 64))
    return panoptic_config(backbone=BACKBONE, neck=neck, mask_head=mask_head, bbox_head=dict(sync_cls_avg_factor=True))


def panoptic_local_detr() -> dict:
    config = panoptic_local_config(norm_cfg=GROUP_NORM, jitter=dict(JITTER, type='mmdet_detr_plugin.JitteredBoxes'))
    config['neck'].update(norm_cfg=GROUP_NORM)
    config['stuff_head'].update(norm_cfg=GROUP_NORM)
    config['backbone'].update(BACKBONE)
    return config


# name: model, ranks, precision, objects of each image
CASES = {
    'float64': (detr, 4, torch.float64, COUNTS),
    'float32': (detr, 4, torch.float32, COUNTS),
    'two ranks': (detr, 2, torch.float64, COUNTS),
    'no objects': (detr, 4, torch.float64, NO_OBJECTS),
    'few objects': (detr, 4, torch.float64, FEW_OBJECTS),
    'aided, float64': (aided_detr, 4, torch.float64, COUNTS),
    'aided, float32': (aided_detr, 4, torch.float32, COUNTS),
    'aided, two ranks': (aided_detr, 2, torch.float64, COUNTS),
    'LocalDETR, float64': (local_detr, 4, torch.float64, COUNTS),
    'LocalDETR, float32': (local_detr, 4, torch.float32, COUNTS),
    'LocalDETR, two ranks': (local_detr, 2, torch.float64, COUNTS),
    'LocalDETR, no objects': (local_detr, 4, torch.float64, NO_OBJECTS),
    'LocalDETR, few objects': (local_detr, 4, torch.float64, FEW_OBJECTS),
    'panoptic DETR': (panoptic_detr, 4, torch.float64, COUNTS),
    'panoptic LocalDETR': (panoptic_local_detr, 4, torch.float64, COUNTS),
    'panoptic LocalDETR, no objects': (panoptic_local_detr, 4, torch.float64, NO_OBJECTS),
}
OFFICIAL = (lambda: detr(sync_cls_avg_factor=False), 4, torch.float64, COUNTS)


def global_batch(config: Callable, dtype: torch.dtype, counts: list[int], sizes: list[tuple[int, int]] = SIZES) -> dict:
    """Images of several sizes in one padded size. Of panoptic models, images without things have no stuff either."""
    if config in (panoptic_detr, panoptic_local_detr):
        batch = panoptic_batch(sizes, counts)
        for sample, count in zip(batch['batch_data_samples'], counts, strict=True):
            if not count:
                sample.gt_sem_seg.sem_seg[:] = 255
    else:
        batch = make_batch(sizes, counts)
    batch['batch_inputs'] = batch['batch_inputs'].to(dtype)
    for sample in batch['batch_data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    return batch


def unequal_batch(config: Callable, rank: int) -> dict:
    """Every rank pads to a size of its own, and the last one has the rest of the images: one."""
    mine = slice(2 * rank, 2 * rank + (1 if rank == 3 else 2))
    return global_batch(config, torch.float32, COUNTS[mine], SIZES[mine])


def build_model(config: dict, dtype: torch.dtype) -> torch.nn.Module:
    """The same weights on every rank; batch norm frozen, no dropout."""
    torch.manual_seed(0)
    model = build(config)
    randomize_norm_layers(model)
    model.to(dtype).train()
    return model


def gradient(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', 5)  # as in a run: what is drawn follows from it
    losses = model(batch['batch_inputs'], batch['batch_data_samples'], mode='loss')
    hub.runtime_info.pop('iter')
    getattr(model, 'module', model).parse_losses(losses)[0].backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def distributed_gradient(config: dict, dtype: torch.dtype, batch: dict) -> torch.Tensor:
    """With mmengine's defaults: a parameter that was not used is an error in the second step, which may sum in another order."""
    model = MMDistributedDataParallel(build_model(config, dtype), device_ids=None, broadcast_buffers=False)
    first = gradient(model, batch)
    model.zero_grad()
    second = gradient(model, batch)
    assert (second - first).norm() <= (1e-4 if dtype == torch.float32 else 1e-7) * first.norm()
    return first


def rank_results(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    init_default_scope('mmdet')
    results = {}
    for world_size in (4, 2):
        if rank >= world_size:
            break
        distributed.init_process_group('gloo', init_method=f'file://{folder}/group-{world_size}', rank=rank, world_size=world_size)
        for name, (config, ranks, dtype, counts) in {**CASES, 'official': OFFICIAL}.items():
            if ranks == world_size:
                share = len(SIZES) // ranks
                mine = slice(share * rank, share * (rank + 1))
                batch = {key: value[mine] for key, value in global_batch(config, dtype, counts).items()}
                results[name] = distributed_gradient(config(), dtype, batch)
        if world_size == 4:
            for config in (detr, aided_detr, local_detr, panoptic_detr, panoptic_local_detr):
                results[f'unequal {config.__name__}'] = distributed_gradient(config(), torch.float32, unequal_batch(config, rank))
        else:
            results['norms'] = norm_stats(rank)
        distributed.destroy_process_group()
    torch.save(results, f'{folder}/out.{rank}')


def run_ranks(function: Callable, num_ranks: int, *args) -> None:
    """Raises what a rank raises; kills all after ``SECONDS``."""
    multiprocessing.set_forkserver_preload([__name__])  # imports are done once
    context = multiprocessing.start_processes(function, args, nprocs=num_ranks, join=False, start_method='forkserver')
    limit = time.monotonic() + SECONDS
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < limit, f'the ranks have not ended after {SECONDS} s: one waits for another'
    finally:
        for process in context.processes:
            process.kill()


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


@pytest.fixture(scope='module')
def ranks(tmp_path_factory) -> list[dict]:
    """What every rank got, by names of cases."""
    folder = tmp_path_factory.mktemp('ranks')
    run_ranks(rank_results, 4, str(folder))
    return [torch.load(folder / f'out.{rank}', weights_only=True) for rank in range(4)]


def difference(ranks: list[dict], name: str, case: tuple) -> float:
    config, num_ranks, dtype, counts = case
    first, *others = (result[name] for result in ranks[:num_ranks])
    assert torch.isfinite(first).all() and all(torch.equal(first, other) for other in others)
    whole = gradient(build_model(config(), dtype), global_batch(config, dtype, counts))
    assert whole.norm() > 1e-3
    return ((first - whole).norm() / whole.norm()).item()


@pytest.mark.parametrize('name', CASES)
def test_gradients_of_several_ranks_equal_one_process(ranks, name):
    assert difference(ranks, name, CASES[name]) < (1e-4 if CASES[name][2] == torch.float32 else 1e-7)


def test_class_weights_of_each_rank_differ_by_default_as_in_the_official_code(ranks):
    """The comparison is sharp enough to tell the two normalisations apart."""
    assert difference(ranks, 'official', OFFICIAL) > 1e-3


@pytest.mark.parametrize('config', [detr, aided_detr, local_detr, panoptic_detr, panoptic_local_detr])
def test_ranks_of_other_sizes_and_a_last_partial_batch_stay_together(ranks, config):
    """Equality cannot hold, since the backbone sees other padding; but all have the same finite gradient of every parameter."""
    first, *others = (result[f'unequal {config.__name__}'] for result in ranks)
    assert torch.isfinite(first).all() and first.norm() > 1e-3 and all(torch.equal(first, other) for other in others)


def test_all_ranks_get_the_average_of_trained_norm_statistics(ranks):
    for rank, result in enumerate(ranks[:2]):
        means_and_vars = [stat.unique().tolist() for stat in result['norms']]
        assert means_and_vars == [[0.5], [2.0], [1.5], [3.0], [2.0 + rank], [3.0 + 2 * rank]]
