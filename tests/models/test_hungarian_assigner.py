"""The assigner's two contracts, its place in mmdet's models, and its messages."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from mmdet_detr_plugin.models.assignment import NotFiniteError, solve
from mmdet_detr_plugin.models.hungarian_assigner import Pairs, assign_one_by_one
from mmdet_detr_plugin.models.targets import collate_targets

from ..builders import build, make_batch, random_gt

PAPER = [
    dict(type='ClassificationCost', weight=1.0),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='IoUCost', iou_mode='giou', weight=2.0),
]
FOCAL = [dict(type='FocalLossCost', weight=2.0), *PAPER[1:]]


def assigner(costs=None):
    return TASK_UTILS.build(dict(type='mmdet_detr_plugin.HungarianAssigner', match_costs=costs))


def problem(counts=(5, 0, 12), num_layers=3, num_queries=20, num_classes=7):
    metas = [dict(img_shape=(300 + 10 * i, 400), img_id=i) for i in range(len(counts))]
    gts = [random_gt(count, meta['img_shape'], num_classes) for count, meta in zip(counts, metas)]
    logits = torch.randn(num_layers, len(counts), num_queries, num_classes + 1)
    boxes = torch.rand(num_layers, len(counts), num_queries, 4) * 0.8 + 0.1
    return logits, boxes, collate_targets(gts, metas, num_classes), metas


def as_set(pairs: Pairs):
    return set(zip(*(index.tolist() for index in (pairs.layer, pairs.image, pairs.query, pairs.target))))


@pytest.mark.parametrize('costs', [None, PAPER, FOCAL, PAPER[:1], PAPER[1:]], ids=['default', 'paper', 'focal', 'class', 'boxes'])
def test_batched_and_single_contracts_give_the_same_pairs(costs):
    logits, boxes, targets, metas = problem()
    if costs is FOCAL:  # sigmoid scores have no class for no-object
        logits = logits[..., :-1]
    one = assigner(costs)
    assert as_set(one.assign_batch(logits, boxes, targets, metas)) == as_set(assign_one_by_one(one, logits, boxes, targets, metas))


@pytest.mark.parametrize('costs', [PAPER, FOCAL])
def test_pairs_equal_those_of_mmdets_assigner(costs):
    logits, boxes, targets, metas = problem()
    theirs = TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=costs))
    assert as_set(assigner(costs).assign_batch(logits, boxes, targets, metas)) == as_set(
        assign_one_by_one(theirs, logits, boxes, targets, metas)
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_the_pairs_of_its_values_in_float32(dtype):
    """With mmdet's costs too: of logits that are sure, these take logarithms of numbers that are 0 in half precision."""
    logits, boxes, targets, metas = problem()
    logits = 20 * logits[..., :-1]
    half, full = ((logits.to(dtype).to(kind), boxes.to(dtype).to(kind), targets, metas) for kind in (dtype, torch.float32))
    one, theirs = assigner(FOCAL), TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=FOCAL))
    expected = as_set(one.assign_batch(*full))
    assert as_set(one.assign_batch(*half)) == expected
    assert as_set(assign_one_by_one(one, *half)) == as_set(assign_one_by_one(theirs, *half)) == expected
    gt, found = random_gt(5, (300, 400), 7), random_gt(20, (300, 400)).bboxes.to(dtype)
    scores, matched = logits[0, 0].to(dtype), []
    for kind in (dtype, torch.float32):
        matched.append(one.assign(InstanceData(scores=scores.to(kind), bboxes=found.to(kind)), gt, metas[0]).gt_inds.tolist())
    assert matched[0] == matched[1] and sum(index > 0 for index in matched[0]) == 5


@pytest.mark.parametrize('num_gts, num_preds', [(0, 4), (3, 0), (0, 0), (2, 5), (5, 2)])
def test_assign_keeps_mmdets_contract(num_gts, num_preds):
    gt = random_gt(num_gts, (100, 100), 4)
    pred = InstanceData(scores=torch.randn(num_preds, 5), bboxes=random_gt(num_preds, (100, 100)).bboxes)
    ours, theirs = assigner(PAPER), TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=PAPER))
    ours._warned = True
    args = dict(pred_instances=pred, gt_instances=gt, img_meta=dict(img_shape=(100, 100)))
    result, expected = ours.assign(**args), theirs.assign(**args)
    assert result.num_gts == num_gts and result.gt_inds.dtype == result.labels.dtype == torch.long
    if num_preds:
        assert torch.equal(result.gt_inds, expected.gt_inds) and torch.equal(result.labels, expected.labels)
    else:
        assert len(result.gt_inds) == len(result.labels) == 0


def test_batch_order_permutes_the_pairs():
    logits, boxes, targets, metas = problem(counts=(5, 3, 12))
    pairs = as_set(assigner().assign_batch(logits, boxes, targets, metas))
    order = [2, 0, 1]
    shuffled = replace(
        targets,
        labels=targets.labels[order],
        boxes_cxcywh_norm=targets.boxes_cxcywh_norm[order],
        counts=tuple(targets.counts[i] for i in order),
        given_labels=targets.given_labels[order],
    )
    permuted = assigner().assign_batch(logits[:, order], boxes[:, order], shuffled, [metas[i] for i in order])
    assert {(layer, order[image], query, target) for layer, image, query, target in as_set(permuted)} == pairs


def test_more_objects_than_queries_warns_once_with_both_numbers():
    logits, boxes, targets, metas = problem(counts=(9,), num_queries=4)
    one = assigner()
    with pytest.warns(UserWarning, match='9 objects, the model 4 queries'):
        pairs = one.assign_batch(logits, boxes, targets, metas)
    assert len(pairs.layer) == 3 * 4
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        one.assign_batch(logits, boxes, targets, metas)


@pytest.mark.parametrize('which, name', [('logits', 'predicted class logits'), ('boxes', 'predicted boxes')])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_cost_that_is_not_finite_is_named_and_never_matched(which, name, bad):
    logits, boxes, targets, metas = problem()
    dict(logits=logits, boxes=boxes)[which][1, 2, 0] = bad
    with pytest.raises(FloatingPointError, match=f'image 2 in decoder layer 1 is not finite.*{name}'):
        assigner().assign_batch(logits, boxes, targets, metas)
    with pytest.raises(FloatingPointError, match='not finite'):
        assign_one_by_one(assigner(), logits, boxes, targets, metas)


@pytest.mark.parametrize('label', [-1, 7, 255])
@pytest.mark.parametrize('costs', [PAPER, FOCAL, PAPER[:1]], ids=['paper', 'focal', 'class'])
def test_label_that_is_no_class_is_named(label, costs):
    """At once on the host; on a device with the matching's own copy, whichever assigner does the matching."""
    logits, boxes, _, metas = problem()
    gts = [random_gt(count, meta['img_shape'], 7) for count, meta in zip((5, 0, 12), metas)]
    gts[2].labels[3] = label
    message = f"Label {label} of image 2 is not one of the head's 7 classes \\(0 to 6\\)"
    with pytest.raises(ValueError, match=message):
        collate_targets(gts, metas, 7)
    deferred = collate_targets(gts, metas, 7, defer_check=True)
    with pytest.raises(ValueError, match=message):
        assigner(costs).assign_batch(logits, boxes, deferred, metas)
    with pytest.raises(ValueError, match=message):
        assign_one_by_one(TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=costs)), logits, boxes, deferred, metas)


def test_no_queries_match_nothing():
    _, _, targets, metas = problem()
    pairs = assigner().assign_batch(torch.zeros(2, 3, 0, 8), torch.zeros(2, 3, 0, 4), targets, metas)
    assert len(pairs.prediction) == len(pairs.object) == 0


def test_large_problems_are_solved_in_threads_and_parts_alike():
    counts, rng = [5, 0, 60] * 12, np.random.default_rng(0)
    costs = rng.random((len(counts), 60, 300))
    asked = []

    def part(where: slice) -> np.ndarray:
        asked.append(where)
        return costs[where]

    for threads in (1, 3):
        solutions = solve(part, counts, (60, 300), threads)
        for cost, count, (rows, columns) in zip(costs, counts, solutions, strict=True):
            expected = linear_sum_assignment(cost[:count])
            assert np.array_equal(rows, expected[0]) and np.array_equal(columns, expected[1])
    assert len(asked) > 2
    costs[20, 59, 0] = np.nan
    with pytest.raises(NotFiniteError) as error:
        solve(part, counts, (60, 300), 3)
    assert error.value.problem == 20


def test_empty_costs_are_refused():
    with pytest.raises(ValueError, match='at least one cost'):
        assigner([])


@pytest.mark.parametrize(
    'name',
    [
        'detr/detr_r50_8xb2-150e_coco.py',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    ],
)
def test_assigner_replaces_mmdets_in_its_models(name):
    """Losses of mmdet's DETR, Deformable DETR, DINO and Mask2Former are the same with either assigner."""
    losses = []
    for kind in ('mmdet.HungarianAssigner', 'mmdet_detr_plugin.HungarianAssigner'):
        torch.manual_seed(0)
        cfg = Config.fromfile(f'{mmdet_configs()}/{name}').model
        cfg.backbone.update(init_cfg=None, depth=18)
        narrow = {2048: 512, 1024: 256, 512: 128, 256: 64}
        if 'mask2former' in name:
            cfg.panoptic_head.in_channels = [64, 128, 256, 512]
            cfg.panoptic_head.transformer_decoder.num_layers = 2
            cfg.panoptic_head.pixel_decoder.encoder.num_layers = 1
            cfg.data_preprocessor.pop('batch_augments', None)
        else:
            cfg.neck.in_channels = [narrow[channels] for channels in cfg.neck.in_channels]
            cfg.encoder.num_layers, cfg.decoder.num_layers = 1, 2
        if 'num_queries' in cfg:
            cfg.num_queries = 20
        assert cfg.train_cfg.assigner.type == 'HungarianAssigner'
        cfg.train_cfg.assigner.type = kind
        model = build(cfg)
        model.init_weights()
        batch = make_batch([(64, 64), (64, 48)], [3, 2], num_classes=80)
        if 'mask2former' in name:
            add_masks(batch)
        torch.manual_seed(1)  # the same dropout and denoising noise for both
        losses.append(model.loss(**batch))
    assert losses[0].keys() == losses[1].keys() and len(losses[0]) >= 6
    for key in losses[0]:
        torch.testing.assert_close(losses[0][key], losses[1][key], msg=key)


def mmdet_configs() -> str:
    import mmdet

    return mmdet.__path__[0] + '/.mim/configs'


def add_masks(batch: dict) -> None:
    import numpy as np
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import PixelData

    for sample in batch['batch_data_samples']:
        height, width = sample.batch_input_shape
        masks = np.zeros((len(sample.gt_instances), height, width), np.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, sample.gt_instances.bboxes.long().tolist()):
            mask[y0 : y1 + 1, x0 : x1 + 1] = 1
        sample.gt_instances.masks = BitmapMasks(masks, height, width)
        sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, height, width), 255))
