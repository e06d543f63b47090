"""The matcher and the set loss on any numbers: the best assignment or a named cause, finite losses that reach everything."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_detr_plugin.models.assignment import NotFiniteError, solve
from mmdet_detr_plugin.models.match_cost import paper_cost
from mmdet_detr_plugin.models.targets import collate_targets

from ..reference.set_loss import brute_force_matching, pair_cost
from .fuzzing import fuzz

LABELS = 3
COSTS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-320, 1e300, -1e300, 0.1, 0.3]) | st.floats(allow_nan=False, allow_infinity=False)
BROKEN = st.sampled_from([float('nan'), float('inf'), -float('inf')])
COORDINATES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-7]) | st.floats(0, 1, width=32)
LOGITS = st.sampled_from([0.0, 30.0, -30.0]) | st.floats(-20, 20, width=32)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


@fuzz(0.1)
@given(shape=st.tuples(st.integers(0, 4), st.integers(1, 4)), data=st.data())
def test_fuzzed_costs_are_solved_best_or_refused(shape, data):
    size = shape[0] * shape[1]
    cost = np.array(data.draw(st.lists(COSTS, min_size=size, max_size=size))).reshape(shape)
    if size and data.draw(st.booleans()):
        cost.flat[data.draw(st.integers(0, size - 1))] = data.draw(BROKEN)
    if not np.isfinite(cost).all():
        with pytest.raises(NotFiniteError):
            solve(lambda part: cost[None], [shape[0]], shape, threads=1)
        return
    ((rows, columns),) = solve(lambda part: cost[None], [shape[0]], shape, threads=1)
    assert len(rows) == min(shape) and len(set(columns.tolist())) == len(columns) and sorted(rows.tolist()) == rows.tolist()
    if np.abs(cost).max(initial=0) < 1e9:  # sums of numbers of other sizes are not exact
        best, _ = brute_force_matching(cost.T.tolist(), shape[1], shape[0])
        assert cost[rows, columns].sum() == pytest.approx(best, abs=1e-6)


@st.composite
def problems(draw) -> tuple:
    """Logits (L, B, Q, K+1), boxes (L, B, Q, 4), and ground truth of the B images in pixels."""
    layers, images, queries = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))

    def numbers(values, *shape: int) -> torch.Tensor:
        size = math.prod(shape)
        return torch.tensor(draw(st.lists(values, min_size=size, max_size=size)), dtype=torch.float64).view(shape)

    logits, boxes = numbers(LOGITS, layers, images, queries, LABELS + 1), numbers(COORDINATES, layers, images, queries, 4)
    metas = [dict(img_shape=(50, 80), img_id=index) for index in range(images)]
    gts = []
    for _ in range(images):
        count = draw(st.integers(0, 3))
        corners = numbers(COORDINATES, count, 2, 2).sort(dim=1).values.reshape(count, 4)  # low x, y, high x, y
        labels = torch.tensor(draw(st.lists(st.integers(0, LABELS - 1), min_size=count, max_size=count)), dtype=torch.long)
        gts.append(InstanceData(bboxes=corners * torch.tensor([80.0, 50.0] * 2), labels=labels))
    return logits, boxes, gts, metas


def assigner():
    one = TASK_UTILS.build(dict(type='mmdet_detr_plugin.HungarianAssigner'))
    one._warned = True  # more objects than queries are no news here
    return one


def by_problem(pairs) -> dict[tuple[int, int], dict[int, int]]:
    found: dict = {}
    for layer, image, query, target in zip(*(index.tolist() for index in (pairs.layer, pairs.image, pairs.query, pairs.target))):
        assert query not in found.setdefault((layer, image), {})
        found[layer, image][query] = target
    return found


@fuzz(0.06)
@given(problem=problems())
def test_fuzzed_matching_equals_brute_force(problem):
    logits, boxes, gts, metas = problem
    targets = collate_targets(gts, metas, LABELS)
    found = by_problem(assigner().assign_batch(logits, boxes, targets, metas))
    for layer, image in itertools.product(range(len(logits)), range(len(gts))):
        pairs, count = found.get((layer, image), {}), len(gts[image])
        assert len(pairs) == min(count, logits.shape[2]) == len(set(pairs.values()))
        truth = zip(targets.labels[image, :count].tolist(), targets.boxes_cxcywh_norm[image, :count].double())
        columns = [[_cost(logits[layer, image, q], boxes[layer, image, q], *one) for q in range(logits.shape[2])] for one in truth]
        cost = [list(row) for row in zip(*columns)] or [[] for _ in range(logits.shape[2])]
        if all(math.isfinite(value) for row in cost for value in row):  # two boxes without area have no IoU in the plain formula
            best, _ = brute_force_matching(cost, logits.shape[2], count)
            assert sum(cost[query][target] for query, target in pairs.items()) == pytest.approx(best, abs=1e-4)


def _cost(logits: torch.Tensor, box: torch.Tensor, label: int, target: torch.Tensor) -> float:
    """The plain formula; NaN where areas are so small that it divides by next to nothing."""
    smallest = min(float(box[2] * box[3]), float(target[2] * target[3]))
    return pair_cost(logits, box, label, target) if smallest > 1e-9 else math.nan


@fuzz(0.06)
@given(problem=problems(), dtype=DTYPES, data=st.data())
def test_fuzzed_numbers_that_are_not_finite_are_named(problem, dtype, data):
    logits, boxes, gts, metas = problem
    logits, boxes = logits.to(dtype), boxes.to(dtype)
    broken = data.draw(st.sampled_from([logits, boxes]))
    broken.view(-1)[data.draw(st.integers(0, broken.numel() - 1))] = data.draw(BROKEN)
    targets = collate_targets(gts, metas, LABELS)
    tensors = (logits, boxes)
    has_objects = torch.tensor(targets.counts) > 0
    try:
        assigner().assign_batch(logits, boxes, targets, metas)
    except FloatingPointError as error:
        assert 'is not finite: NaN or infinity in predicted' in str(error) and not all(torch.isfinite(x).all() for x in tensors)
    else:
        assert all(torch.isfinite(x[:, has_objects]).all() for x in tensors)


@fuzz(0.05)
@given(problem=problems(), dtype=DTYPES)
def test_fuzzed_costs_are_finite_and_equal_the_formula(problem, dtype):
    logits, boxes, gts, metas = problem
    targets = collate_targets(gts, metas, LABELS)
    boxes = boxes.to(torch.promote_types(dtype, torch.float32))
    wanted = targets.boxes_cxcywh_norm.to(boxes.dtype)
    layer = paper_cost(logits[0].to(boxes.dtype).log_softmax(-1), boxes[0], targets.labels, wanted, (1.0, 5.0, 2.0))
    assert torch.isfinite(layer).all()
    for image, count in enumerate(targets.counts):
        for target, query in itertools.product(range(count), range(logits.shape[2])):
            one = boxes[0, image, query].double(), int(targets.labels[image, target]), wanted[image, target].double()
            expected = _cost(logits[0, image, query], *one)
            # the constant 2 changes no matching and is left out there
            assert math.isnan(expected) or float(layer[image, target, query]) + 2 == pytest.approx(expected, abs=1e-3)


HEAD = dict(type='mmdet_detr_plugin.DETRHead', num_classes=LABELS, embed_dims=8)


@fuzz(0.03)
@given(problem=problems())
def test_fuzzed_losses_are_finite_and_reach_every_prediction(problem):
    logits, boxes, gts, metas = problem
    logits, boxes = (tensor.float().requires_grad_() for tensor in (logits, boxes))
    head = MODELS.build(HEAD)
    head.assigner._warned = True
    losses = head.loss_by_feat(logits, boxes, gts, metas)
    assert all(torch.isfinite(value).all() for value in losses.values()), losses
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    for tensor in (logits, boxes):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()
    assert logits.grad.abs().sum() > 0 or logits.detach().abs().max() > 10  # a softmax that is certain has no gradient left
