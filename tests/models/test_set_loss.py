"""Matching and loss against formulas written from the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_detr_plugin.boxes import aligned_giou, cxcywh_to_xyxy, xyxy_to_cxcywh
from mmdet_detr_plugin.models.targets import collate_targets

from ..builders import random_gt
from ..reference import set_loss as reference

SHAPES = st.tuples(
    st.integers(1, 3),  # decoder layers
    st.lists(st.integers(0, 4), min_size=1, max_size=3),  # objects of each image
    st.integers(1, 5),  # queries
    st.integers(1, 4),  # classes
    st.integers(0, 2**31 - 1),
)  # seed


def random_problem(num_layers, counts, num_queries, num_classes, seed):
    """Predictions of all layers in float64, ground truth and image infos."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_layers, len(counts), num_queries, num_classes + 1, generator=generator, dtype=torch.float64) * 3
    boxes = torch.rand(num_layers, len(counts), num_queries, 4, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    metas = [dict(img_shape=(40 + 10 * i, 70), img_id=i) for i in range(len(counts))]
    gts = [random_gt(count, meta['img_shape'], num_classes, generator, torch.float64) for count, meta in zip(counts, metas)]
    return logits, boxes, gts, metas


def reference_targets(gts, metas):
    labels = [gt.labels.tolist() for gt in gts]
    scales = [torch.tensor([w, h, w, h], dtype=torch.float64) for h, w in (meta['img_shape'] for meta in metas)]
    return labels, [xyxy_to_cxcywh(gt.bboxes / scale) for gt, scale in zip(gts, scales)]


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_losses_and_gradients_equal_reference_formulas(shape):
    logits, boxes, gts, metas = random_problem(*shape)
    num_layers = shape[0]
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=shape[3], embed_dims=8)).double()

    ours = [tensor.clone().requires_grad_() for tensor in (logits, boxes)]
    losses = head.loss_by_feat(*ours, gts, metas)
    sum(losses.values()).backward()
    theirs = [tensor.clone().requires_grad_() for tensor in (logits, boxes)]
    expected = {}
    for layer in range(num_layers):
        prefix = '' if layer == num_layers - 1 else f'd{layer}.'
        values = reference.set_loss(theirs[0][layer], theirs[1][layer], *reference_targets(gts, metas))
        expected.update({prefix + name: value for name, value in values.items()})
    sum(expected.values()).backward()

    assert set(losses) == set(expected)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-6, atol=1e-12, msg=name)
    for our, their in zip(ours, theirs):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-6, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_matching_equals_brute_force(shape):
    logits, boxes, gts, metas = random_problem(*shape)
    assigner = TASK_UTILS.build(dict(type='mmdet_detr_plugin.HungarianAssigner'))
    assigner._warned = True
    pairs = assigner.assign_batch(logits, boxes, collate_targets(gts, metas, shape[3]), metas)
    labels, target_boxes = reference_targets(gts, metas)
    for layer in range(len(logits)):
        for image in range(len(gts)):
            cost = [
                [
                    reference.pair_cost(logits[layer, image, q], boxes[layer, image, q], label, box)
                    for label, box in zip(labels[image], target_boxes[image])
                ]
                for q in range(shape[2])
            ]
            least, _ = reference.brute_force_matching(cost, shape[2], len(labels[image]))
            here = (pairs.layer == layer) & (pairs.image == image)
            found = list(zip(pairs.query[here].tolist(), pairs.target[here].tolist()))
            assert len(found) == min(shape[2], len(labels[image]))
            assert len({q for q, _ in found}) == len({t for _, t in found}) == len(found)
            assert sum(cost[q][t] for q, t in found) == pytest.approx(least, rel=1e-9, abs=1e-9)


def test_giou_of_hand_computed_boxes():
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    others = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [4.0, 0.0, 6.0, 2.0], [0.5, 0.5, 1.5, 1.5]])
    # equal; IoU 1/7 in a hull of 9; disjoint with union 8 in a hull of 12; contained
    expected = torch.tensor([1.0, 1 / 7 - 2 / 9, -4 / 12, 1 / 4])
    torch.testing.assert_close(aligned_giou(box, others), expected)


def test_giou_of_boxes_without_area_is_finite():
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert torch.isfinite(aligned_giou(point, torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]]))).all()


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_box_conversions_are_inverse(values):
    box = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(box)), box, rtol=0, atol=1e-12)


def test_class_weight_and_no_object_weight_change_the_loss_as_written():
    # One query without an object and one with: by hand, with weights 0.25 and 2, and uniform logits over 3 + 1 classes.
    head = MODELS.build(
        dict(
            type='mmdet_detr_plugin.DETRHead',
            num_classes=3,
            embed_dims=8,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, bg_cls_weight=0.25, class_weight=2.0, loss_weight=3.0),
        )
    )
    logits = torch.zeros(1, 1, 2, 4)
    logits[0, 0, 1, 3] = 1.0
    boxes = torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]]]])
    gt = InstanceData(bboxes=torch.tensor([[2.5, 2.5, 7.5, 7.5]]), labels=torch.tensor([1]))
    loss = head.loss_by_feat(logits, boxes, [gt], [dict(img_shape=(10, 10))])
    matched, unmatched = torch.log(torch.tensor(4.0)), torch.log(3 + torch.e * torch.ones(())) - 1
    torch.testing.assert_close(loss['loss_cls'], 3 * (2 * matched + 0.25 * unmatched) / 2.25)
    assert loss['loss_bbox'] == 0 and loss['loss_iou'].abs() < 1e-6


@pytest.mark.parametrize('counts', [[0, 0], [1, 0], [3, 7]])
def test_unusual_object_counts_keep_the_graph_connected(counts):
    logits, boxes, gts, metas = random_problem(3, counts, 5, 4, seed=1)
    logits.requires_grad_()
    boxes.requires_grad_()
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=4, embed_dims=8)).double()
    head.assigner._warned = True
    losses = head.loss_by_feat(logits, boxes, gts, metas)
    assert all(loss.requires_grad and torch.isfinite(loss) for loss in losses.values())
    assert {loss.dtype for loss in losses.values()} == {torch.float64}
    sum(losses.values()).backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
    assert boxes.grad is not None and (boxes.grad != 0).any() == (sum(counts) > 0)


def test_half_precision_predictions_give_float32_losses():
    logits, boxes, gts, metas = random_problem(2, [3, 1], 6, 4, seed=2)
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=4, embed_dims=8))
    gts = [InstanceData(bboxes=gt.bboxes.float(), labels=gt.labels) for gt in gts]
    exact = head.loss_by_feat(logits.float(), boxes.float(), gts, metas)
    rounded = head.loss_by_feat(logits.bfloat16(), boxes.bfloat16(), gts, metas)
    for name, value in rounded.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.05)


def test_aux_loss_switch_leaves_only_the_last_layer():
    logits, boxes, gts, metas = random_problem(3, [2], 5, 4, seed=3)
    heads = [
        MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=4, embed_dims=8, aux_loss=aux)).double() for aux in (True, False)
    ]
    with_aux, without = (head.loss_by_feat(logits, boxes, gts, metas) for head in heads)
    assert set(without) == {'loss_cls', 'loss_bbox', 'loss_iou'}
    for name, value in without.items():
        assert value == with_aux[name]


def test_normalisation_is_averaged_over_ranks(monkeypatch):
    """As if another rank had three times as many objects: box losses halve; the classification loss only on request."""
    logits, boxes, gts, metas = random_problem(1, [2, 1], 5, 4, seed=4)
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=4, embed_dims=8)).double()
    alone = head.loss_by_feat(logits, boxes, gts, metas)
    monkeypatch.setattr('mmdet_detr_plugin.models.detr_head.reduce_mean', lambda value: value * 2)
    together = head.loss_by_feat(logits, boxes, gts, metas)
    torch.testing.assert_close(together['loss_bbox'], alone['loss_bbox'] / 2)
    torch.testing.assert_close(together['loss_iou'], alone['loss_iou'] / 2)
    torch.testing.assert_close(together['loss_cls'], alone['loss_cls'])
    head.sync_cls_avg_factor = True
    torch.testing.assert_close(head.loss_by_feat(logits, boxes, gts, metas)['loss_cls'], alone['loss_cls'] / 2)


def test_no_object_weight_of_zero_without_objects_is_no_fault():
    head = MODELS.build(
        dict(type='mmdet_detr_plugin.DETRHead', num_classes=4, embed_dims=8, loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.0))
    ).double()
    logits, boxes, gts, metas = random_problem(1, [0], 5, 4, seed=5)
    assert head.loss_by_feat(logits, boxes, gts, metas)['loss_cls'] == 0
