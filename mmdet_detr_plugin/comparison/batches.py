"""What the training loaders of several configs deliver, compared pixel for pixel and box for box.

Compared is what comes out of the pipelines: before normalisation and padding, batch augmentation in the data preprocessor, and hooks that
change a pipeline in the course of training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor

from ..config_files import kind


class NotRepeatableError(ValueError):
    """A config without what makes its samples depend on the seed alone."""


@dataclass
class DeliveredSample:
    """One training sample as the model gets it: after augmentation, before normalisation and padding."""

    epoch: int
    batch: int
    image: str
    pixels: Tensor  # (3, H, W), uint8
    boxes_xyxy_abs: Tensor  # (N, 4)
    labels: Tensor  # (N,)
    ignored_boxes_xyxy_abs: Tensor  # (M, 4)


def delivered_samples(cfg: Config, epochs: int, max_batches: int | None = None) -> Iterator[DeliveredSample]:
    """The samples of the first epochs, of ``max_batches`` batches each, in the order of training on one process; no model is built.

    Raises:
        NotRepeatableError: when the config has no seed, or lacks the hook that seeds its samples in training.
    """
    seed = cfg.get('randomness', {}).get('seed')
    hooks = {kind(hook if isinstance(hook, dict) else type(hook)) for hook in cfg.get('custom_hooks') or []}
    if seed is None or 'EpochSeedHook' not in hooks:
        raise NotRepeatableError(
            f'{cfg.filename} needs randomness.seed and mmdet_detr_plugin.EpochSeedHook in custom_hooks for samples that can be repeated, '
            f'got seed {seed} and {sorted(hooks)}; a config that inherits hooks writes custom_hooks = _base_.custom_hooks + [...]'
        )
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
    for epoch in range(epochs):
        if max_batches is not None and epoch:  # some samplers keep state when an epoch is not read to its end
            loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):  # as mmengine's DistSamplerSeedHook
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        if hasattr(loader.dataset, 'sample_randomness'):
            loader.dataset.sample_randomness.set(seed, epoch)
        for number, batch in enumerate(islice(loader, max_batches)):
            for pixels, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                gt = sample.gt_instances
                ignored = sample.ignored_instances.bboxes if 'ignored_instances' in sample else gt.bboxes[:0]
                yield DeliveredSample(epoch, number, sample.img_path, pixels, _tensor(gt.bboxes), gt.labels, _tensor(ignored))


def first_difference(cfgs: Sequence[Config], epochs: int = 2, max_batches: int | None = None) -> str | None:
    """None when all loaders deliver the same; else where and how they first differ.

    One config twice, with 0 and with 2 workers, shows transforms that keep a generator or a cache of their own, which no seed reaches.

    Raises:
        NotRepeatableError: when a config has no seed, or lacks the hook that seeds its samples in training.
    """
    streams = [delivered_samples(cfg, epochs, max_batches) for cfg in cfgs]
    sentinel = object()
    while True:
        samples = [next(stream, sentinel) for stream in streams]
        if all(sample is sentinel for sample in samples):
            return None
        for number, sample in enumerate(samples[1:], start=2):
            if (samples[0] is sentinel) != (sample is sentinel):
                return f'config {number} delivers another number of samples in {epochs} epochs than config 1'
            if problem := _difference(samples[0], sample):
                where = f'epoch {samples[0].epoch + 1}, batch {samples[0].batch + 1}'
                return f'{where}: config {number} delivers {problem} than config 1 ({sample.image} and {samples[0].image})'


def _difference(a: DeliveredSample, b: DeliveredSample) -> str | None:
    if (a.epoch, a.batch) != (b.epoch, b.batch):
        return 'another batch size or epoch length'
    if a.image != b.image:
        return 'another image'
    if a.pixels.shape != b.pixels.shape:
        return f'another image size, {tuple(b.pixels.shape[1:])} instead of {tuple(a.pixels.shape[1:])},'
    if not torch.equal(a.pixels, b.pixels):
        return 'other pixels'
    for name in ('boxes_xyxy_abs', 'labels', 'ignored_boxes_xyxy_abs'):
        if not torch.equal(getattr(a, name), getattr(b, name)):
            return f'other {name}'
    return None


def _tensor(boxes) -> Tensor:
    return getattr(boxes, 'tensor', boxes)  # mmdet's HorizontalBoxes or a tensor
