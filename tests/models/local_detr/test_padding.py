"""Padding changes nothing at valid cells: in the parts, and in neck and head together."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmdet_detr_plugin.models.detector import feature_padding_mask
from mmdet_detr_plugin.models.local_detr.masked_convs import convolve, normalise
from mmdet_detr_plugin.models.local_detr.outputs import View

from ...builders import build, make_batch, randomize_norm_layers
from .test_detector import config

GROUP_NORM = dict(type='GN', num_groups=8)


def padded(*valid: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """(B, h, w), True beyond each image's valid rows and columns."""
    mask = torch.ones(len(valid), *size, dtype=torch.bool)
    for image, (rows, columns) in zip(mask, valid):
        image[:rows, :columns] = False
    return mask


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), GROUP_NORM], ids=['BN', 'GN'])
@pytest.mark.parametrize('act', [None, dict(type='ReLU')], ids=['linear', 'ReLU'])
def test_convolution_of_a_padded_image_equals_that_of_the_image_alone(norm_cfg, act):
    module = ConvModule(8, 16, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act).eval()
    randomize_norm_layers(module)
    mask, x = padded((5, 7), (6, 4), size=(6, 9)), torch.randn(2, 8, 6, 9)
    x = x.masked_fill(mask[:, None], 0)
    got = convolve(module, x, mask)
    for image, (rows, columns) in enumerate(((5, 7), (6, 4))):
        torch.testing.assert_close(
            got[image, :, :rows, :columns], module(x[image : image + 1, :, :rows, :columns])[0], rtol=1e-4, atol=1e-5
        )
    assert (got.masked_select(mask[:, None]) == 0).all()
    torch.testing.assert_close(convolve(module, x, torch.zeros_like(mask)), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_batch_norm_learns_the_statistics_of_valid_cells(kind):
    """As batch norm of the list of valid cells, gradients and running averages too; also what SyncBN becomes on one process."""
    ours, theirs = revert_sync_batchnorm(kind(4)), nn.BatchNorm1d(4)
    mask = padded((5, 7), (6, 4), size=(6, 9))
    x = (3 + 2 * torch.randn(2, 4, 6, 9)).requires_grad_()
    cells = x.detach().permute(0, 2, 3, 1)[~mask].requires_grad_()
    weight = torch.randn(len(cells), 4)
    for _ in range(2):
        got, expected = normalise(ours, x, mask).permute(0, 2, 3, 1)[~mask], theirs(cells)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad.permute(0, 2, 3, 1)[~mask], cells.grad, rtol=1e-3, atol=1e-5)
    assert (x.grad.permute(0, 2, 3, 1)[mask] == 0).all()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)], ids=['BN', 'GN'])
def test_norms_are_exact_where_the_mean_is_large(norm):
    """As those of torch on the valid cells alone, 100 and 1000 standard deviations from 0."""
    mask = padded((5, 7), (5, 7), size=(6, 9))
    for mean in (100.0, 1000.0):
        x = mean + torch.randn(2, 4, 6, 9)
        expected = nn.functional.group_norm(x[..., :5, :7].double(), 2) if isinstance(norm, nn.GroupNorm) else None
        if expected is None:
            expected = nn.functional.batch_norm(x[..., :5, :7].double(), None, None, training=True)
        torch.testing.assert_close(normalise(norm, x, mask)[..., :5, :7].double(), expected, rtol=1e-3, atol=2e-4)


def test_one_valid_cell_moves_no_running_average():
    norm, mask = nn.BatchNorm2d(4), padded((1, 1), size=(2, 3))
    normalise(norm, torch.randn(1, 4, 2, 3) + 5, mask)
    assert norm.running_mean.tolist() == [0] * 4 and norm.running_var.tolist() == [1] * 4


def model_of(norm_cfg: dict, num_queries: int = 12):
    cfg = config(num_dense_convs=2)
    cfg['bbox_head'].update(norm_cfg=norm_cfg, num_queries=num_queries)
    cfg['neck']['norm_cfg'] = norm_cfg
    return revert_sync_batchnorm(build(cfg, randomize_norms=True)).eval()


def features(sizes: list[tuple[int, int]], batch: tuple[int, int], filling: float):
    """Feature maps of a batch of these sizes in pixels, their masks and the view; ``filling`` is what padding holds."""
    generator = torch.Generator().manual_seed(0)
    feats, masks = [], []
    for level, channels in enumerate((16, 32, 64, 128)):
        stride = 4 * 2**level
        mask = padded(*((height // stride, width // stride) for height, width in sizes), size=(batch[0] // stride, batch[1] // stride))
        cells = [torch.randn(channels, height // stride, width // stride, generator=generator) for height, width in sizes]
        feat = torch.full((len(sizes), channels, *mask.shape[1:]), filling)
        for image, of_image in zip(feat, cells):
            image[:, : of_image.shape[1], : of_image.shape[2]] = of_image
        feats.append(feat)
        masks.append(mask)
    scale = torch.tensor([[[width / batch[1], height / batch[0]] * 2] for height, width in sizes])
    return feats, View(scale, masks)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), GROUP_NORM], ids=['BN', 'GN'])
def test_padding_changes_nothing(norm_cfg):
    """Neither what it holds, nor that it is there."""
    torch.manual_seed(0)
    model, sizes = model_of(norm_cfg), [(96, 160), (128, 96)]
    results = []
    for filling in (0.0, 5.0):
        feats, view = features(sizes, (128, 192), filling)
        memory = model.neck(feats, view.padding_masks)
        results.append((memory, model.bbox_head(memory, view)))
    (memory, outputs), (other_memory, other_outputs) = results
    for ours, theirs in zip((*memory, outputs.logits, outputs.boxes), (*other_memory, other_outputs.logits, other_outputs.boxes)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for image, (height, width) in enumerate(sizes):
        feats, _ = features(sizes, (128, 192), 0.0)
        own = [feat[image : image + 1, :, : height // stride, : width // stride] for feat, stride in zip(feats, (4, 8, 16, 32))]
        alone = model.neck(own)
        for level, own_level in zip(memory, alone):
            rows, columns = own_level.shape[2:]
            torch.testing.assert_close(level[image, :, :rows, :columns], own_level[0], rtol=1e-3, atol=1e-4)
        found = model.bbox_head(alone, View(torch.ones(1, 1, 4), [None] * 4))
        torch.testing.assert_close(found.logits[:, 0], outputs.logits[:, image], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.boxes[:, 0], outputs.boxes[:, image], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='SyncBN'), GROUP_NORM], ids=['BN', 'SyncBN on one process', 'GN'])
def test_what_padding_holds_changes_nothing_in_training(norm_cfg):
    """Neither memory and predictions, nor running averages."""
    results = []
    for filling in (0.0, 5.0):
        torch.manual_seed(0)
        model = model_of(norm_cfg).train()
        feats, view = features([(96, 160), (128, 96)], (128, 192), filling)
        memory = model.neck(feats, view.padding_masks)
        outputs = model.bbox_head(memory, view)
        averages = [buffer for name, buffer in model.named_buffers() if 'running' in name and 'backbone' not in name]
        results.append((*memory, outputs.logits, outputs.boxes, *averages))
    assert (len(averages) == 0) == (norm_cfg is GROUP_NORM)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_convolution_sees_nothing_in_padded_cells():
    """Also where a coarse cell reaches beyond the image, and finer ones under it do not."""
    model, sizes = model_of(GROUP_NORM), [(88, 148), (128, 96)]
    feats, view = features([(96, 160), (128, 96)], (128, 192), 5.0)
    masks = [feature_padding_mask(sizes, (128, 192), feat.shape[-2:], feat.device) for feat in feats]
    assert [mask[0].logical_not().sum().item() for mask in masks] == [22 * 37, 11 * 19, 6 * 10, 3 * 5]
    seen = []

    def look(module, inputs):
        (mask,) = [mask for mask in masks if mask.shape[-2:] == inputs[0].shape[-2:]]
        seen.append((inputs[0].masked_select(mask[:, None]) == 0).all().item())

    towers = model.bbox_head.dense_head.cls_tower, model.bbox_head.dense_head.box_tower
    convs = [module for part in (model.neck.fusions, *towers) for module in part.modules() if isinstance(module, nn.Conv2d)]
    for conv in convs:
        conv.register_forward_pre_hook(look)
    model.bbox_head(model.neck(feats, masks), View(view.scale, masks))
    assert len(seen) == 4 + 3 * 2 * 2 and all(seen)


def test_an_image_of_fewer_cells_than_queries_gets_queries_that_are_nothing():
    """What padding holds reaches neither them nor the others; and they match no object as long as there are others."""
    torch.manual_seed(0)
    model, sizes = model_of(GROUP_NORM, num_queries=30), [(32, 32), (128, 128)]  # 16 + 4 + 1 cells that the dense head sees
    outputs = []
    for filling in (0.0, 5.0):
        feats, view = features(sizes, (128, 128), filling)
        outputs.append(model.bbox_head(model.neck(feats, view.padding_masks), view))
    alone = model.neck([feat[:1, :, : 32 // stride, : 32 // stride] for feat, stride in zip(feats, (4, 8, 16, 32))])
    found = model.bbox_head(alone, View(torch.ones(1, 1, 4), [None] * 4))  # 21 queries, and nothing else to attend to
    torch.testing.assert_close(outputs[0].logits[:, 0, :21], found.logits[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outputs[0].boxes[:, 0, :21], found.boxes[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs[0].boxes, outputs[1].boxes, rtol=1e-4, atol=1e-5)
    is_nothing = (outputs[0].logits == -20).all(-1).all(0)
    assert is_nothing.sum(1).tolist() == [9, 0] and outputs[0].is_used[:, 21:].any(1).tolist() == [False, True]
    model.bbox_head.max_per_img = 30 * 5
    corners, scores, _, queries = model.bbox_head.best_pairs(outputs[0].logits[-1], outputs[0].boxes[-1])
    assert (queries[0, : 21 * 5] < 21).all() and (scores[0, : 21 * 5] > 1e-4).all()
    assert (scores[0, 21 * 5 :] < 1e-8).all() and (corners[0, 21 * 5 :] == 1).all()


@pytest.mark.parametrize('at', ['top left', 'bottom right', 'middle'])
def test_queries_of_padding_match_no_object_while_there_are_others(at):
    torch.manual_seed(0)
    model, sizes = model_of(GROUP_NORM, num_queries=30), [(32, 32), (128, 128)]
    batch = make_batch(sizes, [21, 3])
    low = {'top left': 0.0, 'bottom right': 30.0, 'middle': 15.0}[at]
    batch['batch_data_samples'][0].gt_instances.bboxes = torch.tensor([[low, low, low + 2, low + 2]] * 21)
    feats, view = features(sizes, (128, 128), 0.0)
    step = model.bbox_head.matched_losses(model.neck(feats, view.padding_masks), view, batch['batch_data_samples'])
    for layer in range(len(step.outputs.logits)):
        of_small = step.pairs.query[(step.pairs.image == 0) & (step.pairs.layer == layer)]
        assert sorted(of_small.tolist()) == list(range(21))


def test_objects_for_which_only_padding_is_left_add_no_loss():
    torch.manual_seed(0)
    model, sizes = model_of(GROUP_NORM, num_queries=30), [(32, 32), (128, 128)]
    feats, view = features(sizes, (128, 128), 0.0)
    memory, losses = model.neck(feats, view.padding_masks), []
    for count in (21, 25):
        batch = make_batch(sizes, [count, 3])
        for sample in batch['batch_data_samples']:
            sample.gt_instances.bboxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]] * len(sample.gt_instances))
            sample.gt_instances.labels[:] = 1
        step = model.bbox_head.matched_losses(memory, view, batch['batch_data_samples'])
        losses.append({name: value * (count + 3) for name, value in step.losses.items() if 'dense' not in name and 'jitter' not in name})
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, msg=name)


def test_training_on_padded_images_of_few_cells():
    """More objects than valid cells, and jittered copies beside queries that are nothing: finite, and every parameter has a gradient."""
    cfg = config()
    cfg['bbox_head'].update(num_queries=30)
    model = build(cfg, randomize_norms=True).train()
    batch = make_batch([(40, 40), (128, 128)], [25, 3])
    total, _ = model.parse_losses(model.loss(**copy.deepcopy(batch)))
    total.backward()
    assert torch.isfinite(total)
    assert [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not torch.isfinite(parameter.grad).all()
    ] == []
