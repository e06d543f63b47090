"""What is not finite never reaches scipy and is never matched: for every cost, every kind of input, at every place."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_detr_plugin.models import assignment, hungarian_assigner
from mmdet_detr_plugin.models.local_detr.head import ASSIGNER
from mmdet_detr_plugin.models.targets import collate_targets

from ..builders import random_gt

COSTS = {
    'ClassificationCost': dict(type='mmdet.ClassificationCost', weight=1.0),
    'FocalLossCost': dict(type='mmdet.FocalLossCost', weight=2.0),
    'BBoxL1Cost of xywh': dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
    'BBoxL1Cost of xyxy': dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xyxy'),
    'IoUCost of giou': dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
    'IoUCost of iou': dict(type='mmdet.IoUCost', iou_mode='iou', weight=2.0),
}
SETS = {name: [cost] for name, cost in COSTS.items()} | {'paper': None, 'local-detr': ASSIGNER['match_costs'], 'all': list(COSTS.values())}
BAD = [float('nan'), float('inf'), float('-inf')]
NAMES = dict(logits='predicted class logits', boxes='predicted boxes', objects='ground-truth boxes')
COUNTS, LAYERS, QUERIES, CLASSES = (3, 0, 5), 2, 7, 4

cases = given(costs=st.sampled_from(list(SETS)), which=st.sampled_from(list(NAMES)), bad=st.sampled_from(BAD), place=st.integers(0, 10**6))
many = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assigner(costs: list[dict] | None):
    return TASK_UTILS.build(dict(type='mmdet_detr_plugin.HungarianAssigner', match_costs=costs))


@pytest.fixture
def scipy_calls(monkeypatch) -> list[np.ndarray]:
    """Every cost that scipy gets."""
    calls = []
    for module in (assignment, hungarian_assigner):
        solve = module.linear_sum_assignment

        def recorded(cost, solve=solve):
            calls.append(cost)
            return solve(cost)

        monkeypatch.setattr(module, 'linear_sum_assignment', recorded)
    return calls


def problem() -> dict:
    generator = torch.Generator().manual_seed(0)
    metas = [dict(img_shape=(90, 100 + index), img_path=f'{index}.jpg') for index in range(len(COUNTS))]
    return dict(
        logits=torch.randn(LAYERS, len(COUNTS), QUERIES, CLASSES + 1, generator=generator),
        boxes=torch.rand(LAYERS, len(COUNTS), QUERIES, 4, generator=generator) * 0.5 + 0.2,
        gts=[random_gt(count, meta['img_shape'], CLASSES, generator) for count, meta in zip(COUNTS, metas, strict=True)],
        metas=metas,
    )


def planted(which: str, bad: float, place: int) -> tuple[dict, int]:
    """A problem with one bad value, and the image it is in."""
    data = problem()
    if which == 'objects':
        image = (0, 2)[place % 2]
        data['gts'][image].bboxes.view(-1)[place % data['gts'][image].bboxes.numel()] = bad
        return data, image
    tensor = data[which]
    index = np.unravel_index(place % tensor.numel(), tensor.shape)
    tensor[index] = bad
    return data, int(index[1])


@many
@cases
def test_batched_matching_raises_and_names_tensor_and_image(scipy_calls, costs, which, bad, place):
    scipy_calls.clear()
    data, image = planted(which, bad, place)
    with pytest.raises(FloatingPointError, match=rf'image {image}\.jpg in decoder layer \d is not finite.*{NAMES[which]}'):
        targets = collate_targets(data['gts'], data['metas'], CLASSES)
        assigner(SETS[costs]).assign_batch(data['logits'], data['boxes'], targets, data['metas'])
    assert scipy_calls == []


@many
@cases
def test_matching_of_one_image_raises_and_names_the_tensor(scipy_calls, costs, which, bad, place):
    """mmdet's contract. Logits may be -inf there: Grounding DINO masks words so."""
    scipy_calls.clear()
    data, image = planted(which, bad, place)
    height, width = data['metas'][image]['img_shape']
    scale = torch.tensor([width, height, width, height])
    one, raised = assigner(SETS[costs]), 0
    for layer in range(LAYERS):
        pred = InstanceData(scores=data['logits'][layer, image], bboxes=data['boxes'][layer, image] * scale)
        try:
            one.assign(pred, data['gts'][image], data['metas'][image])
        except FloatingPointError as error:
            assert f'image {image}.jpg' in str(error) and NAMES[which] in str(error)
            raised += 1
    allowed = which == 'logits' and bad == float('-inf')
    expected = {'objects': LAYERS}.get(which, 1) if COUNTS[image] else 0
    assert raised == expected or (allowed and raised == 0)
    assert all(np.isfinite(cost).all() for cost in scipy_calls)


def test_finite_problems_are_matched(scipy_calls):
    data = problem()
    targets = collate_targets(data['gts'], data['metas'], CLASSES)
    for costs in SETS.values():
        pairs = assigner(costs).assign_batch(data['logits'], data['boxes'], targets, data['metas'])
        assert len(pairs.prediction) == LAYERS * sum(COUNTS)
    assert len(scipy_calls) == len(SETS) * LAYERS * len(COUNTS)


def test_masks_that_are_not_finite_are_named(scipy_calls):
    """DiceCost and CrossEntropyLossCost, as Mask2Former uses them."""
    costs = [dict(type='mmdet.DiceCost', weight=5.0, pred_act=True), dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True)]
    for bad in BAD:
        masks = torch.randn(6, 12)
        masks[2, 3] = bad
        gt = InstanceData(labels=torch.tensor([0, 1]), masks=torch.randint(2, (2, 12)).float())
        for cost in costs:
            with pytest.raises(FloatingPointError, match='predicted masks'):
                assigner([cost]).assign(InstanceData(scores=torch.randn(6, 3), masks=masks), gt, dict(img_id=1))
    assert scipy_calls == []
