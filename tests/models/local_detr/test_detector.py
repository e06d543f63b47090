"""LocalDETR as a whole: gradients, invariances, what training aids leave behind, messages."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from ...builders import build, make_batch, randomize_norm_layers
from ...conftest import ROOT

SHAPES = [(96, 160), (128, 90)]


def config(**head) -> dict:
    model = Config.fromfile(ROOT / 'configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py').model.to_dict()
    model['test_cfg'] = None
    model['backbone'].update(base_channels=16, stem_channels=16)
    model['neck'].update(in_channels=[16, 32, 64, 128], embed_dims=32, num_heads=4, feedforward_channels=64)
    model['bbox_head'].update(embed_dims=32, num_heads=4, feedforward_channels=64, num_queries=12, num_points=3, num_classes=5, **head)
    return model


@pytest.mark.parametrize('counts', [[4, 2], [0, 3], [0, 0]], ids=str)
def test_every_parameter_gets_a_gradient(counts):
    """Also where no image has an object, so that several processes never wait for each other."""
    model = build(config(), randomize_norms=True).train()
    for layer in model.bbox_head.layers:  # at their initial zeros nothing passes them
        torch.nn.init.normal_(layer.box_mlp.layers[-1].weight, std=0.1)
        torch.nn.init.constant_(layer.duplicate_threshold, 0.01)
    total, _ = model.parse_losses(model.loss(**make_batch(SHAPES, counts)))
    total.backward()
    assert torch.isfinite(total)
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    if sum(counts):
        still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
        # softmax does not see a constant; no object of this batch is of the size that some levels are for
        allowed = ('relation_bias.bias', '.in_proj_bias', 'dense_head.box_tower.norms')
        assert all(any(part in name for part in allowed) for name in still), still


def test_jitter_leaves_no_trace_in_the_network():
    """The same keys, the same selected queries and the same detections; only the losses are more."""
    torch.manual_seed(0)
    plain = build(config(jitter=None), randomize_norms=True).eval()
    aided = build(config()).eval()
    aided.load_state_dict(plain.state_dict(), strict=True)
    batch = make_batch(SHAPES, [4, 2])
    losses, more = plain.loss(**batch), aided.loss(**batch)
    for name, value in losses.items():
        torch.testing.assert_close(more[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert {name.split('.')[0] for name in more.keys() - losses.keys()} == {'jitter'}
    for ours, theirs in zip(aided.predict(**copy.deepcopy(batch)), plain.predict(**copy.deepcopy(batch)), strict=True):
        assert torch.equal(ours.pred_instances.bboxes, theirs.pred_instances.bboxes)


def test_batch_partners_do_not_matter():
    """Images of one size: the same detections alone and in a batch."""
    model = build(config(), randomize_norms=True).eval()
    batch = make_batch([(96, 128)] * 3, [1, 1, 1])
    together = model.predict(**copy.deepcopy(batch))
    for index in range(3):
        (alone,) = model.predict(batch['batch_inputs'][index : index + 1], copy.deepcopy(batch['batch_data_samples'][index : index + 1]))
        torch.testing.assert_close(alone.pred_instances.scores, together[index].pred_instances.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.pred_instances.bboxes, together[index].pred_instances.bboxes, rtol=1e-3, atol=1e-2)


def test_detections_are_ordered_scaled_and_inside_the_image():
    model = build(config(), randomize_norms=True).eval()
    batch = make_batch(SHAPES, [4, 2])
    scaled = model.predict(**copy.deepcopy(batch))
    plain = model.predict(**copy.deepcopy(batch), rescale=False)
    for sample, other in zip(scaled, plain, strict=True):
        found, height, width = sample.pred_instances, *sample.ori_shape
        assert len(found) == 12 and (found.scores.diff() <= 0).all() and set(found.labels.tolist()) <= set(range(5))
        assert (found.bboxes >= 0).all() and (found.bboxes <= torch.tensor([width, height] * 2)).all()
        torch.testing.assert_close(found.bboxes, 2 * other.pred_instances.bboxes)


def test_small_images_have_fewer_queries():
    model = build(config()).eval()
    (sample,) = model.predict(**make_batch([(8, 8)], [1]))
    assert len(sample.pred_instances) == 12  # of 3 locations with 5 classes each
    logits, boxes = model(torch.zeros(1, 3, 8, 8), None, mode='tensor')
    assert logits.shape == (3, 1, 3, 5) and boxes.shape == (3, 1, 3, 4)


def test_network_exports_as_one_graph():
    model = build(config(), randomize_norms=True).eval()
    image = torch.randn(1, 3, 96, 128)
    exported = torch.export.export(model, (image,)).module()
    for ours, theirs in zip(exported(image), model(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_parts_that_do_not_fit_say_so():
    wrong = config()
    wrong['neck']['in_channels'] = [1, 32, 64, 128]
    with pytest.raises(ValueError, match=r'expects feature maps of \(1, 32, 64, 128\) channels, the backbone gives \[16, 32, 64, 128\]'):
        build(wrong)(torch.zeros(1, 3, 64, 64))
    wrong = config()
    wrong['neck']['embed_dims'] = 64
    with pytest.raises(ValueError, match='neck.embed_dims is 64, bbox_head.embed_dims is 32'):
        MODELS.build(wrong)


def test_the_dense_head_has_no_more_levels_than_the_memory():
    """The parts of the others would never get a gradient, which several processes wait for."""
    build(config(num_dense_levels=4))(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match='num_dense_levels is 5, the neck gives 4 levels'):
        build(config(num_dense_levels=5))(torch.zeros(1, 3, 64, 64))
    for number in (0, -1, 2.0):
        with pytest.raises(ValueError, match='num_dense_levels must be a whole number of at least 1'):
            build(config(num_dense_levels=number))


def test_other_costs_are_refused():
    """Softmax costs of sigmoid scores would say nothing of the class."""
    assigner = dict(type='mmdet_detr_plugin.HungarianAssigner', match_costs=[dict(type='IoUCost', iou_mode='iou', weight=1.0)])
    with pytest.raises(ValueError, match="costs of the paper's form"):
        MODELS.build({**config(), 'train_cfg': dict(assigner=assigner)})


def test_broken_weights_end_in_the_message_of_the_matching():
    model = build(config()).train()
    torch.nn.init.constant_(model.bbox_head.dense_head.conv_box.weight, torch.nan)
    with pytest.raises(FloatingPointError, match='predicted boxes'):
        model.loss(**make_batch(SHAPES, [4, 2]))


def test_changes_of_boxes_are_scaled():
    """The first layer's; a centre moves by a share of the box's size, a side by a factor."""
    torch.manual_seed(0)
    model = build(config(), randomize_norms=True).eval()
    for layer in model.bbox_head.layers:
        torch.nn.init.normal_(layer.box_mlp.layers[-1].weight, std=0.1)
    image = torch.randn(1, 3, 96, 128)
    _, start = build_with(model, delta_scale=0.0)(image, None, mode='tensor')
    _, whole = build_with(model, delta_scale=1.0)(image, None, mode='tensor')
    _, part = build_with(model, delta_scale=0.25)(image, None, mode='tensor')
    assert (whole[0] - start[0]).abs().max() > 0.01
    torch.testing.assert_close(part[0, ..., :2] - start[0, ..., :2], 0.25 * (whole[0, ..., :2] - start[0, ..., :2]), rtol=1e-3, atol=1e-5)
    factors = (part[0, ..., 2:] / start[0, ..., 2:]), (whole[0, ..., 2:] / start[0, ..., 2:])
    torch.testing.assert_close(factors[0].log(), 0.25 * factors[1].log(), rtol=1e-3, atol=1e-5)


def build_with(model, **head):
    """The same weights in another head."""
    other = build(config(**head)).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_refinement_starts_from_the_dense_boxes():
    """With the initial weights no layer changes a box."""
    model = build(config()).eval()
    randomize_norm_layers(model)
    _, boxes = model(torch.randn(1, 3, 96, 128), None, mode='tensor')
    torch.testing.assert_close(boxes[0], boxes[2])
