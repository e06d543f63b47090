"""PanopticDETR: losses, frozen detector, predictions, and images at the edge of what there is."""

import copy

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData

from mmdet_detr_plugin.models.panoptic.segments import with_stuff_objects

from ...builders import MMDET_HEAD, build, detr_config
from .builders import STUFF, THINGS, panoptic_batch, panoptic_config, rectangle, set_segments

SHAPES, COUNTS = [(96, 160), (128, 90)], [3, 2]


def losses_of(model, batch) -> dict:
    return model.loss(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']))


def gradients(model, losses) -> dict:
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_losses_and_gradients_are_those_of_all_masks():
    """Only the matched queries' masks are made; the official code makes all and then selects."""
    torch.manual_seed(0)
    model = build(panoptic_config(neck=dict(dropout=0.0)), randomize_norms=True).eval()
    batch = panoptic_batch(SHAPES, COUNTS)
    losses = losses_of(model, batch)
    ours = gradients(model, losses)

    samples = with_stuff_objects(batch['batch_data_samples'], THINGS, THINGS + STUFF)
    logits, boxes, masks = model(batch['batch_inputs'], samples, mode='tensor')
    gt = [sample.gt_instances for sample in samples]
    expected = model.bbox_head.loss_by_feat(logits, boxes, gt, [sample.metainfo for sample in samples])
    focal, dice = [], []
    for index, instances in enumerate(gt):
        targets = type(batch['batch_data_samples'][0].gt_instances)(labels=instances.labels, bboxes=instances.bboxes)
        size = samples[index].img_shape
        predicted = type(targets)(scores=logits[-1, index].detach(), bboxes=_corners(boxes[-1, index].detach(), size))
        gt_inds = model.bbox_head.assigner.assign(predicted, targets, samples[index].metainfo).gt_inds
        for query in gt_inds.nonzero().flatten():
            large = torch.nn.functional.interpolate(masks[index, query][None, None], (128, 160), mode='bilinear').flatten()
            target, p = instances.masks[gt_inds[query] - 1].flatten().float(), large.sigmoid()
            p_t, alpha_t = torch.where(target > 0, p, 1 - p), torch.where(target > 0, 0.25, 0.75)
            focal.append((-alpha_t * (1 - p_t) ** 2 * p_t.log()).mean())
            dice.append(1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1))
    assert len(focal) == sum(COUNTS) + 2 * STUFF
    expected |= dict(loss_mask=torch.stack(focal).sum() / len(focal), loss_dice=torch.stack(dice).sum() / len(dice))
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)
    theirs = gradients(model, expected)
    assert ours.keys() == theirs.keys() and any(name.startswith('mask_head.attention') for name in ours)
    for name, value in theirs.items():
        assert (ours[name] - value).norm() <= 1e-3 * value.norm() + 1e-6, name


def _corners(boxes, size):
    centre, extent = boxes[:, :2], boxes[:, 2:]
    return torch.cat((centre - extent / 2, centre + extent / 2), 1) * torch.tensor([size[1], size[0]] * 2)


def test_frozen_detector_stays_as_it_is_and_the_mask_head_learns():
    torch.manual_seed(0)
    model = build(panoptic_config(freeze_detector=True)).train()
    assert not model.backbone.training and model.neck.training
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for seed in range(2):
        losses = losses_of(model, panoptic_batch(SHAPES, COUNTS, seed))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith('mask_head.')}
    assert changed == {name for name in before if not name.startswith(model.pretrained_prefixes)}
    assert build(panoptic_config()).pretrained_prefixes == ()


def test_training_aids_work_beside_the_masks():
    aid = dict(training_aids=dict(groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=1)))
    plain, aided, frozen = (build(panoptic_config() | extra) for extra in ({}, aid, aid | dict(freeze_detector=True)))
    losses = losses_of(aided, panoptic_batch(SHAPES, COUNTS))
    assert {'loss_mask', 'loss_dice', 'groups.loss_bbox'} <= losses.keys()
    assert losses_of(frozen, panoptic_batch(SHAPES, COUNTS)).keys() == losses_of(plain, panoptic_batch(SHAPES, COUNTS)).keys()
    assert plain.state_dict().keys() == {name for name in aided.state_dict() if not name.startswith('training_aids.')}


def opinionated(**test_cfg):
    """An untrained model whose queries do not all say the same."""
    torch.manual_seed(0)
    model = build(panoptic_config() | dict(test_cfg=test_cfg), randomize_norms=True).eval()
    opinions = 3 * torch.randn(10, THINGS + STUFF + 1)
    model.bbox_head.fc_cls.register_forward_hook(lambda layer, inputs, logits: logits + opinions)
    return model


def test_results_are_mmdets_and_belong_to_the_image():
    model = opinionated(max_per_img=7, score_thr=0.2)
    batch = panoptic_batch(SHAPES, COUNTS)
    with torch.no_grad():
        for rescale, factor in ((True, 2), (False, 1)):
            samples = model.predict(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']), rescale)
            for sample, (height, width) in zip(samples, SHAPES, strict=True):
                size = (height * factor, width * factor)
                assert sample.pred_panoptic_seg.sem_seg.shape == (1, *size)
                assert sample.pred_instances.masks.shape == (len(sample.pred_instances.labels), *size)
                assert (sample.pred_instances.labels < THINGS).all() and len(sample.pred_instances) <= 7


def test_masks_made_for_a_result_are_those_of_all_queries():
    model = opinionated(score_thr=0.2)
    batch = panoptic_batch([(96, 160)], [3])
    sample = batch['batch_data_samples'][0]
    with torch.no_grad():
        logits, _, masks = model(batch['batch_inputs'], [sample], mode='tensor')
        result = model.predict(batch['batch_inputs'], [copy.deepcopy(sample)], rescale=False)[0]
    scores, labels = logits[-1, 0].softmax(-1).max(-1)
    large = torch.nn.functional.interpolate(masks[0][:, None], (96, 160), mode='bilinear')[:, 0]
    best, kinds = logits[-1, 0].softmax(-1)[:, :-1].max(-1)
    order = [query for query in best.argsort(descending=True).tolist() if kinds[query] < THINGS]
    assert torch.equal(result.pred_instances.masks, large[order] > 0) and len(order)
    sure = ((labels < THINGS + STUFF) & (scores > 0.2)).nonzero().flatten()
    assert len(sure) > 1
    owner = labels[sure][large[sure].argmax(0)]
    agree = (result.pred_panoptic_seg.sem_seg[0] % 1000 == owner).float().mean()
    assert agree > 0.99  # up to pixels of segments that are dropped as too small


def test_a_result_that_is_not_asked_for_is_not_made():
    batch = panoptic_batch([(64, 64)], [1])
    for on, off in (('panoptic_on', 'instance_on'), ('instance_on', 'panoptic_on')):
        model = build(panoptic_config() | dict(test_cfg={off: False})).eval()
        with torch.no_grad():
            sample = model.predict(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']))[0]
        assert ('pred_panoptic_seg' in sample) == (on == 'panoptic_on')
        assert ('masks' in sample.pred_instances) == (on == 'instance_on')


def edge_case(kind: str) -> dict:
    batch = panoptic_batch([(64, 96), (96, 64)], [2, 1])
    sample, (height, width) = batch['batch_data_samples'][0], (64, 96)
    boxes = {
        'empty': [],
        'stuff only': [],
        'one segment covers the image': [[0, 0, width, height]],
        '100 segments': [[x, y, x + 9, y + 6] for y in range(0, 60, 6) for x in range(0, 90, 9)],
        'segments of one pixel': [[5, 7, 6, 8], [95, 63, 96, 64], [0, 0, 1, 1]],
    }[kind]
    labels = torch.arange(len(boxes)) % THINGS
    masks = [rectangle(box, (height, width)) for box in boxes]
    stuff = [THINGS] if kind == 'stuff only' else []
    set_segments(sample, torch.tensor(boxes).reshape(-1, 4), labels, masks, stuff)
    if kind in ('empty', 'stuff only'):
        other = batch['batch_data_samples'][1]
        set_segments(other, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), [], stuff)
    return batch


@pytest.mark.parametrize('kind', ['empty', 'stuff only', 'one segment covers the image', '100 segments', 'segments of one pixel'])
def test_images_at_the_edge_train_and_give_results(kind):
    torch.manual_seed(0)
    model = build(panoptic_config(neck=dict(num_queries=110))).train()
    batch = edge_case(kind)
    losses = losses_of(model, batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert (losses['loss_mask'] == 0) == (kind == 'empty')
    found = gradients(model, losses)
    assert found.keys() == {name for name, value in model.named_parameters() if value.requires_grad}  # as several processes need
    counts = [len(sample.gt_instances) for sample in with_stuff_objects(batch['batch_data_samples'], THINGS, THINGS + STUFF)]
    assert counts[0] == {'empty': 0, 'stuff only': 1, 'one segment covers the image': 1, '100 segments': 100}.get(kind, 3)
    with torch.no_grad():
        for sample in model.eval().predict(batch['batch_inputs'], batch['batch_data_samples']):
            assert (sample.pred_panoptic_seg.sem_seg == THINGS + STUFF).all()  # an untrained model is sure of nothing


def test_stuff_becomes_objects_with_boxes_of_its_pixels():
    batch = panoptic_batch([(40, 60)], [0])
    sample = batch['batch_data_samples'][0]
    seg = torch.full((40, 60), 255)
    seg[3:7, 10:21], seg[30, 50], seg[0, 0] = THINGS, THINGS + 1, 1  # the last one belongs to a thing
    seg[39, 59] = THINGS + STUFF  # no class
    sample.gt_sem_seg = PixelData(sem_seg=seg[None])
    objects = with_stuff_objects([sample], THINGS, THINGS + STUFF)[0].gt_instances
    assert objects.bboxes.tolist() == [[10, 3, 21, 7], [50, 30, 51, 31]] and objects.labels.tolist() == [THINGS, THINGS + 1]
    assert objects.masks.sum((1, 2)).tolist() == [44, 1]
    assert len(sample.gt_instances) == 0  # the sample itself stays as it is


def test_what_is_missing_is_named():
    batch = panoptic_batch([(64, 64)], [1])
    model = build(panoptic_config())
    sample = copy.deepcopy(batch['batch_data_samples'][0])
    del sample.gt_sem_seg
    with pytest.raises(ValueError, match='image 0.jpg has no map of its stuff, and the model has 2 stuff classes'):
        model.loss(batch['batch_inputs'], [sample])
    del sample.gt_instances.masks
    with pytest.raises(ValueError, match='image 0.jpg has no masks; load them with mmdet_detr_plugin.LoadPanopticAnnotations'):
        model.loss(batch['batch_inputs'], [sample])


def test_boxes_alone_come_before_the_masks():
    """The paper's first stage: stuff has boxes too; its weights are those of the second stage's detector."""
    config = panoptic_config()
    config['mask_head'] = None
    model = build(config)
    batch = panoptic_batch(SHAPES, COUNTS)
    losses = losses_of(model, batch)
    assert not {'loss_mask', 'loss_dice'} & losses.keys() and losses['loss_bbox'] > 0
    sample = model.eval().predict(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']))[0]
    assert 'pred_panoptic_seg' not in sample and 'masks' not in sample.pred_instances
    second = build(panoptic_config(freeze_detector=True))
    missing, unexpected = second.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith('mask_head.') for name in missing)
    with pytest.raises(ValueError, match='leaves nothing to train'):
        build(config | dict(freeze_detector=True))


def test_instances_alone_need_no_map():
    model = build(panoptic_config(bbox_head=dict(num_classes=THINGS)) | dict(num_stuff_classes=0, test_cfg=dict(panoptic_on=False)))
    batch = panoptic_batch(SHAPES, COUNTS, stuff=False)
    for sample in batch['batch_data_samples']:
        del sample.gt_sem_seg
    assert losses_of(model, batch)['loss_mask'] > 0


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(num_things_classes=4), r'num_things_classes \+ num_stuff_classes = 4 \+ 2, got 5'),
        (dict(backbone=dict(out_indices=(3,))), r'set backbone.out_indices=\(0, 1, 2, 3\), got \(3,\)'),
        (dict(mask_head=dict(embed_dims=64)), 'mask_head.embed_dims is 64, neck.embed_dims 32'),
        (dict(mask_head=dict(type='DETRMaskHead')), "mask_head.type 'DETRMaskHead' has no scope"),
        (dict(bbox_head=MMDET_HEAD), 'got TransformerNeck and mmdet.models.*DETRHead'),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(panoptic_config(**changes))


def test_compiled_are_the_parts_that_are_called():
    model = build(panoptic_config() | dict(compile_transformer=True))
    assert all(part._compiled_call_impl is not None for part in (model.neck.encoder, model.neck.decoder, model.bbox_head))
    assert model.neck._compiled_call_impl is None


def test_the_detector_is_that_of_detr():
    """Same names, so that a detector's weights load into the panoptic model (the paper's second stage)."""
    detector = build(detr_config(bbox_head=dict(num_classes=THINGS + STUFF)))
    panoptic = build(panoptic_config())
    assert {name for name in panoptic.state_dict() if not name.startswith('mask_head.')} == detector.state_dict().keys()


def test_rectangles_of_the_builders_are_what_they_say():
    assert np.argwhere(rectangle([1, 2, 3, 4], (5, 6))).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
