"""The parts of LocalDETR against independent formulas: sampling in boxes, selection, pair features, losses, jittered boxes."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses.gfocal_loss import quality_focal_loss
from mmdet.models.losses.varifocal_loss import varifocal_loss as mmdet_varifocal_loss
from mmengine.logging import MessageHub

from mmdet_detr_plugin.boxes import aligned_iou, cxcywh_to_xyxy
from mmdet_detr_plugin.models.hungarian_assigner import Pairs
from mmdet_detr_plugin.models.local_detr.box_attention import level_of_boxes, sample_in_boxes
from mmdet_detr_plugin.models.local_detr.decoder import refine
from mmdet_detr_plugin.models.local_detr.dense_head import DenseHead, assign
from mmdet_detr_plugin.models.local_detr.head import varifocal_loss
from mmdet_detr_plugin.models.local_detr.query_selection import select_locations
from mmdet_detr_plugin.models.local_detr.relation_attention import RelationAttention, pair_features
from mmdet_detr_plugin.models.targets import collate_targets
from mmdet_detr_plugin.models.training_aids.jittered_boxes import JitteredBoxes

from ...builders import make_batch, random_gt

SHAPES = [(12, 16), (6, 8), (3, 4)]


def random_boxes(*shape: int) -> torch.Tensor:
    """Centre and size; some reach beyond the image."""
    return torch.cat((torch.rand(*shape, 2), 0.02 + 0.7 * torch.rand(*shape, 2)), dim=-1)


def test_samples_in_boxes_equal_grid_sample():
    levels = [torch.randn(2, 5, *shape) for shape in SHAPES]
    memory = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2).requires_grad_()
    boxes, level = random_boxes(2, 30), torch.randint(3, (2, 30))
    got = sample_in_boxes(memory, SHAPES, boxes, level, num_points=4)
    offsets = (torch.arange(4) + 0.5) / 4 - 0.5
    x, y = (boxes[..., axis, None] + offsets * boxes[..., axis + 2, None] for axis in (0, 1))
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), dim=-1).flatten(2, 3)  # rows of the grid, (B, Q, 16, 2)
    sampled = torch.stack([F.grid_sample(level, 2 * grid - 1, align_corners=False) for level in levels])  # (3, B, C, Q, 16)
    expected = sampled.permute(1, 3, 4, 2, 0).gather(4, level[:, :, None, None, None].expand(2, 30, 16, 5, 1))[..., 0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.square().sum().backward()
    assert memory.grad.abs().sum() > 0


@pytest.mark.parametrize('cells, expected', [(1, 0), (7, 0), (9.8, 0), (10.0, 1), (14, 1), (20, 2), (1000, 2)])
def test_the_level_of_a_box_is_the_one_on_which_it_has_that_many_cells(cells, expected):
    box = torch.tensor([[[0.5, 0.5, cells / 100, cells / 100]]])
    assert level_of_boxes(box, [(100, 100), (50, 50), (25, 25)], num_cells=7).item() == expected
    wide = torch.tensor([[[0.5, 0.5, 4 * cells / 100, cells / 400]]])  # the same area
    assert level_of_boxes(wide, [(100, 100), (50, 50), (25, 25)], num_cells=7).item() == expected


def test_refinement_moves_boxes_in_units_of_their_size():
    box = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    assert torch.equal(refine(box, torch.zeros(1, 4)), box)
    torch.testing.assert_close(refine(box, torch.tensor([[0.5, -1.0, math.log(2), math.log(0.5)]])), torch.tensor([[0.6, 0.3, 0.4, 0.05]]))
    assert torch.isfinite(refine(box, torch.full((1, 4), 1e4))).all()


def test_local_maxima_come_first_and_padding_last():
    score = torch.zeros(1, 1, 4, 5)
    score[0, 0, 0, 0], score[0, 0, 0, 1], score[0, 0, 2, 3], score[0, 0, 3, 4] = 0.9, 0.8, 0.5, 0.4
    score += torch.arange(20).view(1, 1, 4, 5) * 1e-4  # no ties
    coarse = torch.full((1, 1, 1, 1), 0.6)
    chosen, is_used = select_locations([score, coarse], [None, None], 3)
    assert is_used is None and chosen.tolist() == [[0, 20, 13]]  # of the fine level's, the neighbours of maxima are left out
    padding = torch.zeros(1, 4, 5, dtype=torch.bool)
    padding[:, :, 3:] = True
    chosen, is_used = select_locations([score, coarse], [padding, None], 15)
    assert 13 not in chosen[0, :13].tolist() and is_used.tolist() == [[True] * 13 + [False] * 2]  # of 12 + 1 valid cells
    assert sorted(select_locations([score, coarse], [None, None], 99)[0].tolist()[0]) == list(range(21))
    louder = score.clone()
    louder[0, 0, 2, 2], louder[..., 3:] = 0.5, 0.99  # what the network says of padding takes nothing from its neighbours
    assert select_locations([louder, coarse], [padding, None], 3)[0].tolist() == [[0, 20, 12]]


def test_pair_features_have_hand_computed_values():
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.4]]])
    features = pair_features(boxes, torch.tensor([[0.3, 0.7]]))[0]
    overlap = 0.1 * 0.2 / (0.04 + 0.08 - 0.02)
    expected = torch.tensor([overlap, 1.0, overlap, math.log(1.5), 0.0, 0.0, math.log(2)])
    torch.testing.assert_close(features[0, 1], expected)  # the second scores higher than the first
    assert features[1, 0, 1] == 0 and features[0, 0, 1] == 0
    torch.testing.assert_close(features[0, 0], torch.tensor([1.0, 0, 0, 0, 0, 0, 0]))


def test_relation_attention_without_relations_is_plain_attention():
    attention = RelationAttention(16, 4)
    torch.nn.init.xavier_uniform_(attention.in_proj_weight)
    for layer in (attention.relation_bias, attention.relation_proj):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x, mask = torch.randn(2, 6, 16), torch.rand(2, 1, 6, 6) < 0.7
    mask |= torch.eye(6, dtype=torch.bool)
    plain = super(RelationAttention, attention).forward(x, x, x, mask)
    torch.testing.assert_close(attention(x, x, torch.randn(2, 6, 6, 7), mask), plain, rtol=1e-4, atol=1e-5)


def test_varifocal_loss_equals_mmdets():
    counts = (3, 0, 2)
    metas = [dict(img_shape=(100, 120))] * 3
    targets = collate_targets([random_gt(count, (100, 120)) for count in counts], metas, 5)
    logits, boxes = torch.randn(2, 3, 8, 5, requires_grad=True), random_boxes(2, 3, 8)
    chosen = [
        (layer, image, query, slot) for layer in range(2) for image, query, slot in ((0, 5, 0), (0, 1, 1), (0, 7, 2), (2, 3, 1), (2, 4, 0))
    ]
    prediction = torch.tensor([(layer * 3 + image) * 8 + query for layer, image, query, _ in chosen])
    pairs = Pairs(prediction, torch.tensor([image * 3 + slot for _, image, _, slot in chosen]), 3, 8, 3)
    target = torch.zeros(2, 3, 8, 5)
    for layer, image, query, slot in chosen:
        iou = aligned_iou(cxcywh_to_xyxy(boxes[layer, image, query]), cxcywh_to_xyxy(targets.boxes_cxcywh_norm[image, slot]))
        target[layer, image, query, targets.labels[image, slot]] = iou
    got = varifocal_loss(logits, boxes, pairs, targets)
    expected = [mmdet_varifocal_loss(logits[layer].flatten(0, 1), target[layer].flatten(0, 1), reduction='sum') for layer in range(2)]
    torch.testing.assert_close(got, torch.stack(expected))
    part = torch.zeros(3, 8)
    part[0] = 1
    some = varifocal_loss(logits, boxes, pairs, targets, part)
    torch.testing.assert_close(some[0], mmdet_varifocal_loss(logits[0, 0], target[0, 0], reduction='sum'))


def jittered(batch: dict, **kwargs):
    samples = batch['batch_data_samples']
    metas = [sample.metainfo for sample in samples]
    targets = collate_targets([sample.gt_instances for sample in samples], metas, 5)
    return JitteredBoxes(**kwargs)(targets, metas), targets


@pytest.fixture
def iteration():
    """As in a run: the message hub knows seed and iteration."""
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 3)
    hub.update_info('iter', 7)
    yield lambda number: hub.update_info('iter', number)
    for key in ('seed', 'iter'):
        hub.runtime_info.pop(key)


def test_near_copies_lie_on_their_objects_and_far_ones_beside(iteration):
    batch = make_batch([(96, 160), (128, 90)], [4, 2])
    extra, targets = jittered(batch, copies=20)
    assert extra.is_used.sum(1).tolist() == [160, 80]
    for image, count in enumerate((4, 2)):
        boxes = cxcywh_to_xyxy(extra.boxes_cxcywh_norm)[image, : 40 * count].view(20, 2, count, 4)
        overlap = aligned_iou(boxes, cxcywh_to_xyxy(targets.boxes_cxcywh_norm)[image, :count])
        assert overlap[:, 0].min() > 0.25 and overlap[:, 0].mean() > 0.5
        counted = extra.weights[image, : 40 * count].view(20, 2, count) > 0
        assert counted[:, 0].all()
        assert overlap[:, 1][counted[:, 1]].max() <= 0.45  # clipping to the image changes overlaps a little
    pairs = extra.pairs(num_layers=2)
    assert len(pairs.prediction) == 2 * 20 * 6
    flat = extra.boxes_cxcywh_norm.expand(2, -1, -1, -1).flatten(0, 2)[pairs.prediction]
    objects = targets.boxes_cxcywh_norm.flatten(0, 1)[pairs.object]
    assert aligned_iou(cxcywh_to_xyxy(flat), cxcywh_to_xyxy(objects)).min() > 0.25  # every pair is a near copy and its own object


def test_jitter_depends_on_seed_iteration_and_image_alone(iteration):
    """Also how many copies there are: the other image of the batch has many objects."""
    both = make_batch([(96, 160), (128, 90)], [40, 2])
    alone = dict(batch_data_samples=both['batch_data_samples'][1:])
    names = ('boxes_cxcywh_norm', 'labels', 'group', 'weights')

    def drawn(batch: dict) -> list[torch.Tensor]:
        extra = jittered(batch, copies=8, max_queries=120, label_noise=0.5, num_classes=5)[0]
        return [getattr(extra, name)[-1][extra.is_used[-1]] for name in names]

    first = drawn(both)
    assert len(first[0]) == 2 * 8 * 2
    torch.rand(3)  # what else is drawn does not matter
    for name, one, other in zip(names, drawn(alone), first, strict=True):
        assert torch.equal(one, other), name
    iteration(8)
    assert not torch.equal(drawn(alone)[0], first[0])


def test_groups_do_not_see_each_other():
    extra, _ = jittered(make_batch([(96, 160), (128, 90)], [4, 2]), copies=3)
    mask = extra.attend_mask(num_selected=5)
    assert mask.shape == (2, 1, 5 + 24, 5 + 24)
    for image, count in enumerate((4, 2)):
        group = torch.tensor([0] * 5 + [1] * 2 * count + [2] * 2 * count + [3] * 2 * count)
        size = len(group)
        assert torch.equal(mask[image, 0, :size, :size], group[:, None] == group)
    others = ~torch.eye(29, dtype=torch.bool)
    assert not (mask[1, 0] & others)[:, 17:].any() and mask[1, 0].any(-1).all()  # nobody sees what only makes up the number


def test_an_image_with_many_objects_gets_fewer_copies_which_count_more():
    extra, _ = jittered(make_batch([(96, 160), (128, 90)], [40, 2]), copies=8, max_queries=300)
    assert extra.group.shape == (2, 2 * 3 * 40) and extra.is_used.sum(1).tolist() == [240, 32]
    assert extra.group[0].unique().tolist() == [0, 1, 2] and extra.group[1, :32].unique().tolist() == list(range(8))
    pairs = extra.pairs(1)
    weights = torch.zeros(2 * 40).index_add(0, pairs.object, extra.weights.flatten()[pairs.prediction])
    torch.testing.assert_close(weights.view(2, 40), (torch.arange(40) < torch.tensor([[40], [2]])).float())  # once for each object


def test_more_objects_than_copies_are_allowed_take_turns(iteration):
    """The limit holds whatever an image holds; those that are drawn stand for all."""
    seen = set()
    for number in range(12):
        iteration(number)
        extra, _ = jittered(make_batch([(96, 160), (128, 90)], [40, 2]), copies=8, max_queries=30)
        assert extra.is_used.sum(1).tolist() == [30, 7 * 2 * 2] and extra.group[0].unique().tolist() == [0]
        pairs = extra.pairs(1)
        assert len(pairs.object) == 15 + 14 and len(set(pairs.object[:15].tolist())) == 15
        weights = extra.weights.flatten()[pairs.prediction]
        torch.testing.assert_close(weights[:15], torch.full((15,), 40 / 15))
        flat, objects = extra.boxes_cxcywh_norm.flatten(0, 1)[pairs.prediction], extra.targets.boxes_cxcywh_norm.flatten(0, 1)[pairs.object]
        assert aligned_iou(cxcywh_to_xyxy(flat), cxcywh_to_xyxy(objects)).min() > 0.25
        seen |= set(pairs.object[:15].tolist())
    assert seen == set(range(40))


def test_without_objects_there_are_no_copies():
    extra, _ = jittered(make_batch([(96, 160), (128, 90)], [0, 0]))
    assert extra.boxes_cxcywh_norm.shape == (2, 0, 4) and extra.attend_mask(5).all() and len(extra.pairs(3).prediction) == 0


def test_an_object_is_learned_by_the_cells_around_its_centre_on_the_level_of_its_size():
    shapes = [(16, 16), (8, 8), (4, 4)]
    # 4 cells of the finest level, its centre in the middle of cell (row 5, column 3); 16 such cells, that is 4 of the coarsest
    small, large = [3.5 / 16, 5.5 / 16, 4 / 16, 4 / 16], [1.5 / 4, 2.5 / 4, 1.0, 1.0]
    quality, which = assign(torch.tensor([[small, large]]), [2], shapes)
    fine, middle, coarse = quality[0].split([256, 64, 16])
    fine = fine.view(16, 16)
    assert fine[5, 3] == 1 and fine[5, 4] == fine[6, 3] == pytest.approx(math.exp(-0.5)) and fine[4, 2] == pytest.approx(math.exp(-1))
    assert (fine > 0).sum() == 9 and (middle == 0).all()
    assert coarse.view(4, 4)[2, 1] == 1 and (coarse > 0).sum() == 9
    assert which[0][:256][fine.flatten() > 0].tolist() == [0] * 9 and which[0][-16:][coarse > 0].tolist() == [1] * 9


def test_an_object_smaller_than_a_cell_is_learned_by_the_cell_that_holds_it():
    quality, _ = assign(torch.tensor([[[0.31, 0.33, 0.001, 0.001]]]), [1], [(4, 4)])
    assert (quality > 0).nonzero().tolist() == [[0, 5]]


@pytest.mark.parametrize('side', [96, 72, 104, 1312])
def test_a_tiny_object_between_two_cells_is_learned_by_both(side):
    """Its centre is half a cell away from each, however that is rounded."""
    cells = side // 8
    corners = torch.arange(1, cells) / cells
    objects = torch.stack((corners, corners.flip(0), torch.full_like(corners, 2 / side), torch.full_like(corners, 2 / side)), dim=-1)
    for one in objects:
        quality, _ = assign(one[None, None], [1], [(cells, cells)])
        assert (quality > 0).sum() == 4


def test_scores_of_the_dense_head_learn_by_mmdets_quality_focal_loss():
    head, shapes = DenseHead(num_classes=5, embed_dims=8, num_levels=2), [(8, 6), (4, 3)]
    targets = collate_targets([random_gt(3, (64, 48)), random_gt(1, (64, 48))], [dict(img_shape=(64, 48))] * 2, 5)
    logits = [torch.randn(2, 5, *shape) for shape in shapes]
    boxes = cxcywh_to_xyxy(random_boxes(2, 60))
    quality, which = assign(targets.boxes_cxcywh_norm, targets.counts, shapes)
    labels = torch.where(quality > 0, targets.labels.gather(1, which), 5)
    flat = torch.cat([level.flatten(2) for level in logits], dim=2).transpose(1, 2)
    expected = quality_focal_loss(flat.flatten(0, 1), (labels.flatten(), quality.flatten()), beta=2.0, reduction='sum') / quality.sum()
    got = head.loss(logits, boxes, targets, torch.ones(2, 1, 4), [None, None])
    torch.testing.assert_close(got['loss_cls'], expected, rtol=1e-4, atol=1e-5)
    # cells of padding learn nothing
    masks = [torch.zeros(2, *shape, dtype=torch.bool) for shape in shapes]
    for mask in masks:
        mask[1, -1] = True
    noisy = [level.masked_fill(mask[:, None], 9.0) for level, mask in zip(logits, masks)]
    alike = [head.loss(levels, boxes, targets, torch.ones(2, 1, 4), masks)['loss_cls'] for levels in (logits, noisy)]
    assert alike[0] == alike[1] != got['loss_cls']


def test_boxes_of_padded_cells_learn_nothing():
    head, gt = DenseHead(num_classes=5, embed_dims=8, num_levels=1), random_gt(1, (48, 48))
    gt.bboxes = torch.tensor([[16.0, 20.0, 40.0, 44.0]])  # of 48 x 64 pixels; its centre is in row 4 of the cells, row 5 learns too
    targets = collate_targets([gt], [dict(img_shape=(48, 64))], 5)
    mask = torch.zeros(1, 6, 8, dtype=torch.bool)
    mask[:, 5] = True
    boxes = cxcywh_to_xyxy(random_boxes(1, 48)).requires_grad_()
    head.loss([torch.randn(1, 5, 6, 8)], boxes, targets, torch.ones(1, 1, 4), [mask])['loss_iou'].backward()
    learned = (boxes.grad[0] != 0).any(-1).view(6, 8)
    assert learned[4].any() and not learned[5].any()
    boxes.grad = None
    head.loss([torch.randn(1, 5, 6, 8)], boxes, targets, torch.ones(1, 1, 4), [None])['loss_iou'].backward()
    assert (boxes.grad[0] != 0).any(-1).view(6, 8)[5].any()


def test_the_nearer_of_two_objects_wins_a_cell():
    quality, which = assign(torch.tensor([[[1.5 / 8, 0.5, 0.5, 0.5], [3.5 / 8, 0.5, 0.5, 0.5]]]), [2], [(8, 8)])
    row = which[0].view(8, 8)[3]
    assert row[:2].tolist() == [0, 0] and row[3:5].tolist() == [1, 1]
    one, _ = assign(torch.tensor([[[1.5 / 8, 0.5, 0.5, 0.5], [3.5 / 8, 0.5, 0.5, 0.5]]]), [1], [(8, 8)])
    assert (one.view(8, 8)[:, 4] == 0).all() and (quality >= one).all()  # padded objects are nobody's


def test_dense_boxes_that_fit_have_no_loss_and_reach_their_corners():
    head = DenseHead(num_classes=5, embed_dims=8, num_levels=2)
    for parameter in head.conv_box.parameters():
        torch.nn.init.zeros_(parameter)
    logits, boxes = head([torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)], [None, None])
    expected = torch.tensor([[0.5, 1.5, 2.5, 3.5]]) / torch.tensor([6, 4, 6, 4])  # a cell to each side of column 1, row 2
    torch.testing.assert_close(boxes[0, 2 * 6 + 1], expected[0])
    metas = [dict(img_shape=(40, 60))]
    gt = random_gt(1, (40, 60))
    gt.bboxes = expected * torch.tensor([60.0, 40.0, 60.0, 40.0])
    targets = collate_targets([gt], metas, 5)
    scale = torch.ones(1, 1, 4)
    exact = [torch.full_like(level, -20.0) for level in logits]
    quality, _ = assign(targets.boxes_cxcywh_norm, targets.counts, [(4, 6), (2, 3)])
    fitting = boxes.clone()
    fitting[0, quality[0] > 0] = expected
    for index in (quality[0] > 0).nonzero().flatten().tolist():
        exact[0].view(5, -1)[gt.labels.item(), index] = torch.logit(quality[0, index], eps=1e-6)
    losses = head.loss(exact, fitting, targets, scale, [None, None])
    assert losses['loss_iou'] == 0 and losses['loss_cls'] < 1e-4
    assert head.loss(logits, boxes, targets, scale, [None, None])['loss_iou'] > 0.1
