"""PanopticLocalDETR: losses, maps of boxes, predictions, and images at the edge of what there is."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmdet_detr_plugin.boxes import cxcywh_to_xyxy
from mmdet_detr_plugin.models.local_detr.query_selection import select_locations
from mmdet_detr_plugin.models.panoptic import with_masks
from mmdet_detr_plugin.models.panoptic.box_map import maps_of_boxes
from mmdet_detr_plugin.models.panoptic.mask_queries import covered_share, repeated, stuff_owners
from mmdet_detr_plugin.models.panoptic.post_processing import panoptic_map
from mmdet_detr_plugin.models.panoptic.segments import with_stuff_objects
from mmdet_detr_plugin.models.panoptic.stuff_head import Stuff
from mmdet_detr_plugin.models.targets import collate_targets
from mmdet_detr_plugin.registry import MODELS

from ...builders import build
from .builders import STUFF, THINGS, panoptic_batch, panoptic_config, panoptic_local_config
from .test_detector import COUNTS, SHAPES, edge_case, gradients, losses_of

JITTER = dict(type='mmdet_detr_plugin.JitteredBoxes', copies=2)


def build_refining(config: dict):
    """An untrained model whose layers refine their boxes, as they do from the first step of training on."""
    torch.manual_seed(0)
    model = build(config, randomize_norms=True).eval()
    for layer in model.bbox_head.layers:
        torch.nn.init.normal_(layer.box_mlp.layers[-1].weight, std=0.05)
    return model


def masks_alone(losses: dict) -> dict:
    return {name: losses[name] for name in ('loss_mask', 'loss_dice')}


@pytest.mark.parametrize('config', [panoptic_config(), panoptic_local_config()], ids=['PanopticDETR', 'PanopticLocalDETR'])
def test_layers_outputs_are_those_of_the_whole_network_without_a_mask(config, monkeypatch):
    model, batch = build(config, randomize_norms=True).eval(), panoptic_batch(SHAPES, COUNTS)
    logits, boxes, masks, *_ = model(*batch.values(), mode='tensor')
    assert len(masks) == 2
    monkeypatch.setattr(model.mask_head, 'forward', lambda *_: pytest.fail('masks of all queries, which nobody looks at'))
    ours = model.layer_outputs(**batch)
    torch.testing.assert_close(ours, (logits, boxes), rtol=0, atol=0)


@pytest.mark.parametrize('config', [panoptic_config(), panoptic_local_config()], ids=['PanopticDETR', 'PanopticLocalDETR'])
def test_bfloat16_gives_nearly_the_same_losses_and_finite_gradients(config, monkeypatch):
    """From the same locations: with random weights many score alike, and rounding decides which are taken."""
    torch.manual_seed(0)
    model, batch = build(config, randomize_norms=True).eval(), panoptic_batch(SHAPES, COUNTS)
    chosen = []

    def select(*args):
        chosen.append(select_locations(*args))
        return chosen[0]

    monkeypatch.setattr('mmdet_detr_plugin.models.local_detr.head.select_locations', select)
    wanted = losses_of(model, batch)
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, batch)
        model.predict(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']))
    for name, value in wanted.items():
        assert losses[name].dtype == torch.float32 and losses[name].item() == pytest.approx(value.item(), rel=0.15, abs=0.02), name
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model, losses).values())


@pytest.mark.parametrize('stuff_head', [False, True])
def test_mask_losses_and_gradients_are_those_of_all_queries(stuff_head):
    """Only the masks of queries with an object are made, and jittered copies of the objects take no part in them."""
    model = build_refining(panoptic_local_config(stuff_head, jitter=JITTER))
    batch = panoptic_batch(SHAPES, COUNTS)
    losses = masks_alone(losses_of(model, batch))
    ours = gradients(model, losses)

    samples = with_stuff_objects(batch['batch_data_samples'], THINGS, THINGS + STUFF)
    metas = [sample.metainfo for sample in samples]
    logits, boxes, masks, presence = model(batch['batch_inputs'], samples, mode='tensor')
    detected = [sample.gt_instances[sample.gt_instances.labels < (THINGS if stuff_head else THINGS + STUFF)] for sample in samples]
    pairs = model.bbox_head.match(logits[-1:], boxes[-1:], collate_targets(detected, metas, THINGS + STUFF), metas)
    owners = list(zip(pairs.image.tolist(), pairs.query.tolist(), pairs.target.tolist(), strict=True))
    assert masks.shape[1] == logits.shape[2] + presence.shape[1] and presence.shape[1] == STUFF * stuff_head
    if stuff_head:  # the queries behind the detector's, in the order of the classes
        owners += [(image, logits.shape[2] + number, COUNTS[image] + number) for image in range(2) for number in range(STUFF)]
    focal, dice = [], []
    for image, query, target in owners:
        large = F.interpolate(masks[image, query][None, None], (128, 160), mode='bilinear').flatten()
        wanted, p = samples[image].gt_instances.masks[target].flatten().float(), large.sigmoid()
        p_t, alpha_t = torch.where(wanted > 0, p, 1 - p), torch.where(wanted > 0, 0.25, 0.75)
        focal.append((-alpha_t * (1 - p_t) ** 2 * p_t.log()).mean())
        dice.append(1 - (2 * (p * wanted).sum() + 1) / (p.sum() + wanted.sum() + 1))
    assert len(focal) == sum(COUNTS) + 2 * STUFF
    expected = dict(loss_mask=torch.stack(focal).sum() / len(focal), loss_dice=torch.stack(dice).sum() / len(dice))
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)
    theirs = gradients(model, expected)
    assert ours.keys() == theirs.keys() and any(name.startswith('backbone.') for name in ours)
    assert not any('box_mlp' in name or 'dense_head' in name for name in ours)  # masks do not move boxes
    assert any(name.startswith('stuff_head.content_proj') for name in ours) == stuff_head
    for name, value in theirs.items():
        assert (ours[name] - value).norm() <= 1e-3 * value.norm() + 1e-6, name


@pytest.mark.parametrize('stuff_head', [False, True])
def test_losses_of_the_detector_are_those_without_masks(stuff_head):
    """With queries for stuff, those of a detector of things."""
    model = build_refining(panoptic_local_config(stuff_head))
    config = panoptic_local_config(stuff_head=False) | dict(type='mmdet_detr_plugin.LocalDETR')
    for key in ('mask_head', 'num_things_classes', 'num_stuff_classes'):
        config.pop(key)
    detector = build(config).eval()
    of_masks = ('mask_head.', 'stuff_head.')
    detector.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith(of_masks)})
    batch = panoptic_batch(SHAPES, COUNTS)
    samples = batch['batch_data_samples']
    if not stuff_head:
        samples = with_stuff_objects(samples, THINGS, THINGS + STUFF)
    wanted = detector.loss(batch['batch_inputs'], samples)
    found = losses_of(model, batch)
    assert found.keys() == wanted.keys() | {'loss_mask', 'loss_dice'} | ({'loss_stuff', 'loss_stuff_cells'} if stuff_head else set())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def stuff_head_of(num_classes: int):
    return MODELS.build(dict(type='mmdet_detr_plugin.StuffHead', num_stuff_classes=num_classes, embed_dims=32)).eval()


def test_losses_of_stuff_by_hand():
    """Two classes in two images of two cells, one of which is padding."""

    def bce(logit, target):
        return math.log1p(math.exp(logit)) - target * logit

    cells = torch.tensor([[[[0.5, -1.0]], [[2.0, 0.0]]], [[[1.0, 9.0]], [[-2.0, 9.0]]]])
    covered = torch.tensor([[[[1.0, 0.25]], [[0.0, 0.0]]], [[[0.5, 0.0]], [[0.0, 0.0]]]])
    padding = torch.tensor([[[False, False]], [[False, True]]])
    logits = torch.tensor([[0.5, 2.0], [1.0, -2.0]])
    found = stuff_head_of(2).loss(Stuff(torch.zeros(2, 2, 32), logits, cells, padding), covered)
    of_cells = bce(0.5, 1) + bce(-1, 0.25) + bce(2, 0) + bce(0, 0) + bce(1, 0.5) + bce(-2, 0)
    assert found['loss_stuff_cells'] == pytest.approx(of_cells / 3)
    assert found['loss_stuff'] == pytest.approx((bce(0.5, 1) + bce(2, 0) + bce(1, 1) + bce(-2, 0)) / 2)
    nothing = stuff_head_of(2).loss(Stuff(torch.zeros(2, 2, 32), logits, cells, padding), torch.zeros_like(covered))
    assert nothing['loss_stuff'] == pytest.approx(bce(0.5, 0) + bce(2, 0) + bce(1, 0) + bce(-2, 0))
    of_cells = bce(0.5, 0) + bce(-1, 0) + bce(2, 0) + bce(0, 0) + bce(1, 0) + bce(-2, 0)
    assert nothing['loss_stuff_cells'] == pytest.approx(of_cells / 3)


def test_stuff_is_found_where_its_cells_are_and_not_in_padding():
    torch.manual_seed(0)
    head, memory = stuff_head_of(3), torch.randn(1, 32, 5, 6)
    torch.nn.init.normal_(head.conv_cells.weight, std=1.0)
    torch.nn.init.normal_(head.fc_present.weight)
    mask = torch.ones(1, 5, 9, dtype=torch.bool)
    mask[:, :, :6] = False
    padded = F.pad(memory, (0, 3), value=0.0)  # as convolutions pad
    ours, theirs = head(padded, mask), head(memory, None)
    torch.testing.assert_close(ours.hidden_states, theirs.hidden_states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    # by hand: the memory averaged by the cells' probabilities
    share = theirs.cells[0].flatten(1).sigmoid()
    found = share @ memory[0].flatten(1).T / share.sum(1, keepdim=True)
    hidden_states = F.layer_norm(head.content_proj(found), (32,)) + head.query_embed.weight
    torch.testing.assert_close(theirs.hidden_states[0], hidden_states, rtol=1e-4, atol=1e-5)
    best = theirs.cells[0].flatten(1).amax(1)
    torch.testing.assert_close(theirs.logits[0], best + hidden_states @ head.fc_present.weight[0], rtol=1e-4, atol=1e-5)


def test_share_of_a_cell_that_stuff_covers():
    batch = panoptic_batch([(64, 64)], [0])
    sample = batch['batch_data_samples'][0]
    sample.gt_sem_seg.sem_seg[:] = 255
    sample.gt_sem_seg.sem_seg[0, :16, :8] = THINGS + 1
    sample.gt_sem_seg.sem_seg[0, 20:24, 16:32] = THINGS
    samples = with_stuff_objects([sample], THINGS, THINGS + STUFF)
    covered = covered_share(samples, stuff_owners(samples, THINGS), (64, 64), like=torch.zeros(1, STUFF, 4, 4))
    expected = torch.zeros(1, STUFF, 4, 4)
    expected[0, 1, 0, 0], expected[0, 0, 1, 1] = 0.5, 0.25
    torch.testing.assert_close(covered, expected)


def test_masks_of_stuff_start_from_its_cells():
    """The first map, which the box gives where nothing better is known."""
    memory, hidden_states = torch.randn(1, 32, 4, 4), torch.randn(1, 2, 32)
    box_map = build(panoptic_local_config()).mask_head.box_map
    regions = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    covered = torch.stack((torch.full((4, 4), -1.0), torch.rand(4, 4)))[None]
    without, found = box_map(hidden_states, regions, memory), box_map(hidden_states, regions, memory, covered)
    assert torch.equal(found[0, 1, 0], covered[0, 1]) and not torch.equal(without[0, 1, 0], covered[0, 1])
    found[0, 1, 0] = without[0, 1, 0]
    assert torch.equal(found, without)


def test_maps_of_a_box_by_hand():
    """A box from 1 to 2.5 cells along x, and from 0.5 to 3.5 along y, on a map of 8 x 4 cells."""
    box = torch.tensor([1.75 / 8, 2 / 4, 1.5 / 8, 3 / 4])
    maps = maps_of_boxes(box.view(1, 1, 4), (4, 8))[0, 0]
    assert maps.shape == (8, 4, 8) and maps.abs().max() <= 1
    along_x, along_y = torch.tensor([0, 1, 0.5, 0, 0, 0, 0, 0]), torch.tensor([0.5, 1, 1, 0.5])
    torch.testing.assert_close(maps[0], along_y[:, None] * along_x)
    torch.testing.assert_close(maps[1, 0], torch.tensor([-1, -1 / 3, 1, 1, 1, 1, 1, 1]))  # centres at 0.5, 1.5 ... around 1.75
    torch.testing.assert_close(maps[2, :, 0], torch.tensor([-1, -1 / 3, 1 / 3, 1]))
    torch.testing.assert_close(maps[3, 0], torch.tensor([-0.25, 0.25, 0.75, 1, 1, 1, 1, 1]))  # to the left side, in pairs of cells
    torch.testing.assert_close(maps[4, :, 0], torch.tensor([0, 0.5, 1, 1]))  # to the upper
    torch.testing.assert_close(maps[5, 0], torch.tensor([1, 0.5, 0, -0.5, -1, -1, -1, -1]))  # to the right
    torch.testing.assert_close(maps[6, :, 0], torch.tensor([1, 1, 0.5, 0]))
    torch.testing.assert_close(maps[7], torch.full((4, 8), (1.5 * 3 / 32) ** 0.5))


def test_a_box_within_one_cell_and_one_around_everything_are_covered_as_they_lie():
    boxes = torch.tensor([[0.375, 0.375, 0.125, 0.125], [0.5, 0.5, 3.0, 3.0], [0.3, 0.3, 0.0, 0.0]])
    covered = maps_of_boxes(boxes[None], (4, 4))[0, :, 0]
    assert covered[0, 1, 1] == 0.25 and covered[0].sum() == 0.25 and (covered[1] == 1).all() and covered[2].sum() < 1e-5


def test_boxes_are_those_of_the_image_without_its_padding():
    model = build(panoptic_local_config()).eval()
    batch, seen = panoptic_batch([(64, 64), (128, 192)], [1, 1]), []
    model.mask_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        boxes = model(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')[1]
    regions, num_queries = seen[0] * torch.tensor([192, 128, 192, 128]), boxes.shape[2]
    torch.testing.assert_close(regions[0, :num_queries], boxes[-1, 0] * 64)
    torch.testing.assert_close(regions[1, :num_queries], boxes[-1, 1] * torch.tensor([192, 128, 192, 128]))
    for image, (width, height) in enumerate(((64, 64), (192, 128))):  # stuff may be anywhere in the image
        whole = torch.tensor([width / 2, height / 2, width, height]).expand(STUFF, 4)
        torch.testing.assert_close(regions[image, num_queries:], whole)


def opinionated(stuff_head: bool = True, **test_cfg):
    """An untrained model whose queries are sure of different classes, some of two at once; and of the second class of stuff."""
    model = build_refining(panoptic_local_config(stuff_head) | dict(test_cfg=test_cfg))
    if stuff_head:
        of_stuff = torch.tensor([[-1.0, 1.0]])
        model.stuff_head.register_forward_hook(lambda head, inputs, found: replace(found, logits=of_stuff.expand_as(found.logits)))
    opinions = 3 * torch.randn(12, THINGS + STUFF)
    model.bbox_head.layers[-1].fc_cls.register_forward_hook(lambda layer, inputs, logits: 4 + logits + opinions)
    model.mask_head.mask_convs.convs[0].weight.data[:, 32:] *= 10  # masks differ
    return model


@pytest.mark.parametrize('stuff_head', [False, True])
def test_results_are_those_of_all_masks(monkeypatch, stuff_head):
    made = []
    monkeypatch.setattr(with_masks, 'panoptic_map', lambda *args: made.append(args[1]) or panoptic_map(*args))
    model = opinionated(stuff_head, score_thr=0.3, max_per_img=30)
    batch = panoptic_batch([(96, 160)], [3])
    sample = batch['batch_data_samples'][0]
    with torch.no_grad():
        logits, boxes, masks, _ = model(batch['batch_inputs'], [sample], mode='tensor')
        result = model.predict(batch['batch_inputs'], [copy.deepcopy(sample)], rescale=False)[0]
    scores, pairs = logits[-1, 0].sigmoid().flatten().topk(30)
    query, label = pairs // (THINGS + STUFF), pairs % (THINGS + STUFF)
    large = F.interpolate(masks[0][:, None], (96, 160), mode='bilinear')[:, 0]
    is_thing, found = label < THINGS, result.pred_instances
    assert len(query[is_thing].unique()) < is_thing.sum()  # some twice
    assert torch.equal(found.labels, label[is_thing]) and torch.equal(found.masks, large[query[is_thing]] > 0)
    torch.testing.assert_close(found.scores, scores[is_thing])
    corners = cxcywh_to_xyxy(boxes[-1, 0]).clamp(0, 1)[query[is_thing]] * torch.tensor([160, 96] * 2)
    torch.testing.assert_close(found.bboxes, corners, atol=1e-3, rtol=1e-5)
    first = [index for index, one in enumerate(query.tolist()) if one not in query[:index] and scores[index] > 0.3]
    assert len(first) < (scores > 0.3).sum()  # a query makes one segment, of its best class
    of_segments, labels = query[first], label[first]
    if stuff_head:
        assert not is_thing[first].all()  # the detector may say so, but is not asked
        of_segments, labels = of_segments[labels < THINGS], labels[labels < THINGS]
        of_segments, labels = torch.cat((of_segments, torch.tensor([13]))), torch.cat((labels, torch.tensor([THINGS + 1])))
    assert torch.equal(made[0], labels)
    seg = panoptic_map(large[of_segments], labels, THINGS, THINGS + STUFF, (96, 160))
    assert torch.equal(result.pred_panoptic_seg.sem_seg[0], seg) and len(seg.unique()) > 2


def test_results_are_in_the_images_own_pixels_and_only_what_is_asked_for():
    batch = panoptic_batch(SHAPES, COUNTS)
    for off in ('panoptic_on', 'instance_on'):
        model = opinionated(max_per_img=7, **{off: False})
        with torch.no_grad():
            samples = model.predict(batch['batch_inputs'], copy.deepcopy(batch['batch_data_samples']))
        for sample, (height, width) in zip(samples, SHAPES, strict=True):
            found = sample.pred_instances
            assert (found.labels < THINGS).all() and len(found) <= 7
            assert ('masks' in found) == (off == 'panoptic_on') and ('pred_panoptic_seg' in sample) == (off == 'instance_on')
            if off == 'panoptic_on':
                assert found.masks.shape == (len(found), 2 * height, 2 * width) and found.masks.dtype == torch.bool
            else:
                assert sample.pred_panoptic_seg.sem_seg.shape == (1, 2 * height, 2 * width)


@pytest.mark.parametrize('kind', ['empty', 'stuff only', 'one segment covers the image', '100 segments', 'segments of one pixel'])
def test_images_at_the_edge_train_and_give_results(kind):
    torch.manual_seed(0)
    model = build(panoptic_local_config(num_queries=110, jitter=JITTER)).train()
    batch = edge_case(kind)
    losses = losses_of(model, batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert (losses['loss_mask'] == 0) == (kind == 'empty')
    found = gradients(model, losses)
    assert found.keys() == {name for name, value in model.named_parameters() if value.requires_grad}  # as several processes need
    with torch.no_grad():
        for sample in model.eval().predict(batch['batch_inputs'], batch['batch_data_samples']):
            assert (sample.pred_panoptic_seg.sem_seg == THINGS + STUFF).all()  # an untrained model is sure of nothing


def test_repeated_queries():
    assert repeated(torch.tensor([[3, 1, 3, 3, 1], [0, 1, 2, 3, 0]])).int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    'part, changes, message',
    [
        ('bbox_head', dict(num_classes=4), r'num_things_classes \+ num_stuff_classes = 3 \+ 2, got 4'),
        ('backbone', dict(out_indices=(1, 2, 3)), r'set backbone.out_indices=\(0, 1, 2, 3\), got \(1, 2, 3\)'),
        ('mask_head', dict(embed_dims=64), 'mask_head.embed_dims is 64, neck.embed_dims 32'),
        ('mask_head', dict(type='mmdet_detr_plugin.DETRMaskHead', num_heads=8), 'a BoxMaskHead, got PyramidEncoder, .* DETRMaskHead'),
        ('mask_head', dict(num_products=0), 'num_products must be'),
        ('mask_head', dict(in_channels=(64, 32, 32)), r'mask_head.in_channels is \(64, 32, 32\)'),
        ('stuff_head', dict(embed_dims=64), 'stuff_head must be a StuffHead with embed_dims=32 as the neck has, got StuffHead with 64'),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, changes, message):
    config = panoptic_local_config()
    config[part] = config[part] | changes
    with pytest.raises(ValueError, match=message):
        build(config)
