"""Checks of the recipe as such: rate, batch, clipping, seed, queries, padding, scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..config_files import kind
from .config_facts import dict_at, is_detr, is_plain_detr, num_queries
from .finding import ERROR, NOTE, WARNING, Finding, guarded
from .image_sizes import is_random_in_size, output_sizes
from .schedule import Plan, check_evaluation_interval, check_length, check_schedule, planned
from .splits import ConfigData, Split, read_data
from .weights import check_batch_norm, check_frozen_layers, check_start

if TYPE_CHECKING:  # the pre-flight must run where mmengine is what is broken
    from mmengine.config import Config

MANY_QUERIES = 10  # queries for each object of the fullest image
PAPER_RATE, PAPER_BATCH = 1e-4, 64  # AdamW, section A.4
SGD_RATE, SGD_BATCH = 0.02, 16  # mmdet's Faster R-CNN
OTHER_RATE = 10  # times the reference, from which on a rate is named
SCALE_SLACK = 1.25  # objects in evaluation larger or smaller than in training by more than this


def recipe_findings(cfg: Config, data: ConfigData | None = None) -> list[Finding]:
    """What a resolved config plans.

    Args:
        data: of this config, when it is read already.
    """
    data, content = data or read_data(cfg), cfg.to_dict()
    if missing := [key for key in ('model', 'train_cfg', 'optim_wrapper') if not content.get(key)]:
        what = f'the config has no {" and no ".join(missing)}: {len(missing)} of 3 parts of a training recipe are missing'
        return [Finding('recipe', ERROR, what, "inherit a config of configs/, or mmdet's default_runtime, schedule and model")]
    plan = planned(content, data)
    findings = []
    for check, *args in (
        (check_length, content, plan),
        (check_start, content),
        (check_frozen_layers, content),
        (check_batch_norm, content),
        (check_batch_and_rate, content, plan),
        (check_schedule, content, plan),
        (check_evaluation_interval, content, plan),
        (check_clipping, content),
        (check_seed, content),
        (check_spare_queries, content, data),
        (check_padding, content, data),
        (check_scale, data),
    ):
        findings += guarded('recipe', check, *args)
    return findings


def check_batch_and_rate(cfg: dict, plan: Plan) -> list[Finding]:
    """The batch that the rate is meant for; where the config does not name it, the rate against the usual ones."""
    scaling, optimizer = dict_at(cfg, 'auto_scale_lr'), dict_at(cfg, 'optim_wrapper', 'optimizer')
    base, batch, rate = scaling.get('base_batch_size'), plan.batch_size * plan.accumulated, optimizer.get('lr')
    if base and base != batch and not scaling.get('enable'):
        what = f'the learning rate {rate} is meant for {base} images in a batch, one process has {batch}'
        if plan.accumulated > 1:
            what += f' in the {plan.accumulated} iterations of an update, which --auto-scale-lr counts as {plan.batch_size}'
            advice = f'add --auto-scale-lr with auto_scale_lr.base_batch_size={base / plan.accumulated:g}; tools/compare.py does so itself'
            return [Finding('recipe', WARNING, what, advice)]
        if base % batch:
            advice = 'add --auto-scale-lr, which adapts the rate to the real batch, whatever the number of processes'
            return [Finding('recipe', WARNING, what, advice)]
        advice = f'start {plan.processes} processes, or any other number with --auto-scale-lr'
        return [Finding('recipe', NOTE, what, advice)]
    if base or not isinstance(rate, (int, float)):
        return []
    usual = None
    if kind(optimizer) == 'SGD':
        usual, source = SGD_RATE * batch / SGD_BATCH, f"mmdet's Faster R-CNN has {SGD_RATE} for {SGD_BATCH}"
    elif kind(optimizer).startswith('Adam') and is_plain_detr(dict_at(cfg, 'model')):
        usual, source = PAPER_RATE, f'the paper has {PAPER_RATE} for {PAPER_BATCH}'
    if usual and not usual / OTHER_RATE < rate < usual * OTHER_RATE:
        what = f'the {kind(optimizer)} learning rate is {rate} for {batch} images on one process; {source}'
        return [Finding('recipe', WARNING, what, f'try {usual:.2g}, and set auto_scale_lr.base_batch_size to the batch it is meant for')]
    return []


def check_clipping(cfg: dict) -> list[Finding]:
    """DETR's gradients are clipped in every published recipe."""
    if is_detr(dict_at(cfg, 'model')) and not dict_at(cfg, 'optim_wrapper').get('clip_grad'):
        what = 'optim_wrapper.clip_grad is not set: gradients of this DETR are not clipped'
        return [
            Finding(
                'recipe',
                WARNING,
                what,
                "set clip_grad=dict(max_norm=0.1, norm_type=2), the paper's: single large gradients undo what was learned",
            )
        ]
    return []


def check_seed(cfg: dict) -> list[Finding]:
    """Without a seed no run can be repeated; some hooks refuse to start."""
    if dict_at(cfg, 'randomness').get('seed') is not None:
        return []
    needs = 'EpochSeedHook' in {kind(hook) for hook in cfg.get('custom_hooks') or []}
    what = 'randomness.seed is not set' + (', and EpochSeedHook refuses to train without' if needs else ': no run can be repeated')
    return [Finding('recipe', ERROR if needs else WARNING, what, 'set randomness=dict(seed=0); several seeds show how much an AP varies')]


def check_spare_queries(cfg: dict, data: ConfigData) -> list[Finding]:
    """Far more queries than objects: more chances for false positives, slower matching."""
    queries = num_queries(dict_at(cfg, 'model'))
    most = max((int(split.objects_by_image.max(initial=0)) for split in data.splits), default=0)
    if not queries or not most or queries[1] <= max(MANY_QUERIES * most, 50):
        return []
    what = f'{queries[0]} is {queries[1]}, the fullest image has {most} objects'
    advice = f'harmless with pretrained queries; from scratch fewer learn sooner: {max(50, 3 * most)} are enough'
    return [Finding('recipe', NOTE, what, advice)]


def check_padding(cfg: dict, data: ConfigData) -> list[Finding]:
    """A DETR that never saw padding loses up to 10 AP at a padded batch (facebookresearch/detr, issue 217)."""
    training = [split for split in data.training() if len(split.annotations.known_sizes_wh)]
    if not is_detr(dict_at(cfg, 'model')) or not training:
        return []
    train_size, in_training = training[0].batch_size, any(map(_is_padded, training))
    findings = []
    for split in data.evaluation():
        if not len(split.annotations.known_sizes_wh):
            continue
        in_evaluation = _is_padded(split)
        sizes = f'batches of {train_size} in training, of {split.batch_size} in {split.name}'
        if in_evaluation and not in_training:
            what = f'{sizes}: evaluation pads images, training never does'
            advice = (
                f'AP then depends on the batch (facebookresearch/detr #217): evaluate with batch_size=1, or train with {max(2, train_size)}'
            )
            findings.append(Finding('recipe', WARNING, what, f'{advice} images of random sizes'))
        elif in_training and not in_evaluation:
            what = f'{sizes}: training pads images, evaluation never does'
            advice = 'fine for a model that masks padding, as DETR does; evaluate at a padded batch once if you will run it so'
            findings.append(Finding('recipe', NOTE, what, advice))
    return findings


def _is_padded(split: Split) -> bool:
    """Whether images of one batch can differ in size."""
    if split.batch_size < 2:
        return False
    if is_random_in_size(split.pipeline):
        return True
    width, height = output_sizes(split.pipeline, tuple(split.annotations.known_sizes_wh.T))[-1]
    return len(np.unique(width)) > 1 or len(np.unique(height)) > 1


def check_scale(data: ConfigData) -> list[Finding]:
    """How much evaluation enlarges an image of usual size, against the range of training."""
    training = [split for split in data.training() if len(split.annotations.known_sizes_wh)]
    if not training:
        return []
    usual = np.median(training[0].annotations.known_sizes_wh, axis=0, keepdims=True)
    factors = _factors(training[0], usual)
    findings = []
    for split in data.evaluation():
        low, high = min(factors), max(factors)
        factor = _factors(split, usual)[-1]
        if not low / SCALE_SLACK <= factor <= high * SCALE_SLACK:
            span = f'{low:.2f}' if np.isclose(low, high) else f'{low:.2f} to {high:.2f}'
            what = f'{split.name} scales an image of {usual[0, 0]:g} x {usual[0, 1]:g} by {factor:.2f}, training by {span} (crops aside)'
            findings.append(
                Finding('recipe', WARNING, what, "objects have another size than was learned: let training's scales include that")
            )
    return findings


def _factors(split: Split, size_wh: np.ndarray) -> list[float]:
    """By how much a side of an image grows, for every size that the pipeline gives."""
    return [float(np.sqrt((w * h) / size_wh.prod(axis=1))[0]) for w, h in output_sizes(split.pipeline, tuple(size_wh.T))]
