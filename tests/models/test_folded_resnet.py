"""FoldedResNet computes what mmdet's ResNet computes, from the same weights."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from ..builders import make_batch, randomize_norm_layers
from ..conftest import ROOT

FROZEN = dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, frozen_stages=1)
LEARNING = dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False)
AFFINE = dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True)


def pair(**config):
    """mmdet's and the plugin's, in float64 with equal weights and norms that are not at their initial values."""
    theirs = MODELS.build(dict(type='mmdet.ResNet', base_channels=8, stem_channels=8, **copy.deepcopy(config))).double()
    randomize_norm_layers(theirs)
    ours = MODELS.build(dict(type='mmdet_detr_plugin.FoldedResNet', base_channels=8, stem_channels=8, **copy.deepcopy(config))).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('norm', [FROZEN, LEARNING, AFFINE], ids=['frozen', 'learning', 'affine'])
@pytest.mark.parametrize(
    'config',
    [
        dict(depth=18),
        dict(depth=50),
        dict(depth=50, style='caffe', out_indices=(1, 3)),
        dict(depth=50, deep_stem=True, avg_down=True),
        dict(depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(depth=50, with_cp=True),
        dict(depth=50, plugins=[dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv3')]),
    ],
    ids=['basic', 'bottleneck', 'caffe', 'v1d', 'dilated', 'checkpointing', 'plugins'],
)
def test_outputs_gradients_and_statistics_equal_mmdets(config, norm):
    ours, theirs = pair(**config, **norm)
    images = torch.randn(2, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        ours.train(training), theirs.train(training)
        got, expected = ours(images.clone()), theirs(images.clone())
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        if training:
            for outputs in (got, expected):
                sum(output.square().mean() for output in outputs).backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None), name
        if other.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-9, msg=name)
    for (name, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


def test_changed_weights_count_at_once():
    """Also those changed behind autograd's back, as mmengine's EMA hook swaps them."""
    ours, theirs = pair(depth=18, **FROZEN)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    ours.eval(), theirs.eval()
    with torch.no_grad():
        before = ours(images)[-1]
        for model in (ours, theirs):
            model.layer4[1].conv2.weight.data.mul_(2)
            model.layer4[1].bn2.running_var.data.mul_(3)
        after = ours(images)[-1]
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, theirs(images)[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('depth', [18, 50])
def test_weights_are_initialised_as_mmdets(depth):
    models = [MODELS.build(dict(type=kind, depth=depth)) for kind in ('mmdet.ResNet', 'mmdet_detr_plugin.FoldedResNet')]
    for model in models:
        torch.manual_seed(0)
        model.init_weights()
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_frozen_norms_leave_no_copies_for_the_backward_pass():
    """mmdet keeps each convolution's output and the norm's; folded, only what enters each convolution is kept."""
    kept = {}
    for name, model in zip(('ours', 'theirs'), pair(depth=50, **FROZEN), strict=True):
        storages = {}
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def pack(x, storages=storages, parameters=parameters):
            if x.dim() == 4 and x.shape[0] == 2 and x.untyped_storage().data_ptr() not in parameters:
                storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        model.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            output = model(torch.randn(2, 3, 96, 96, dtype=torch.float64))[-1]
        kept[name] = sum(storages.values())
        assert output.requires_grad
    assert kept['ours'] < 0.65 * kept['theirs']


@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_forward_pre_hook'])
def test_what_hooks_keep_is_never_written_over(kind):
    ours, _ = pair(depth=50, **FROZEN)
    ours.float().eval()
    kept = []
    for block in ours.layer1:
        getattr(block, kind)(lambda module, inputs, *outputs: kept.append(((outputs or inputs)[0], (outputs or inputs)[0].clone())))
    with torch.no_grad():
        ours(torch.randn(1, 3, 64, 64))
    assert len(kept) == 3 and all(torch.equal(now, then) for now, then in kept)


def test_inputs_are_never_written_over():
    ours, _ = pair(depth=18, **FROZEN)
    ours.float().eval()
    images = torch.randn(1, 3, 64, 64)
    x = torch.randn(1, 8, 16, 16)
    before = images.clone(), x.clone()
    with torch.no_grad():
        outs = [out.clone() for out in ours(images)]
        ours.layer1[1](x)  # a block by itself
        again = ours(images)
    assert torch.equal(images, before[0]) and torch.equal(x, before[1])
    assert all(torch.equal(a, b) for a, b in zip(outs, again, strict=True))


@pytest.mark.parametrize('trainable', ['bn2.bias', 'bn2.weight'])
def test_partly_frozen_norms_get_their_gradients(trainable):
    ours, theirs = pair(depth=18, **FROZEN)
    for model in (ours, theirs):
        model.train()
        dict(model.layer3[0].named_parameters())[trainable].requires_grad_()
        model(torch.ones(1, 3, 64, 64, dtype=torch.float64))[-1].sum().backward()
    gradients = [dict(model.layer3[0].named_parameters())[trainable].grad for model in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('training', [False, True])
def test_feature_maps_are_contiguous(training):
    """As mmdet's: mmcv's operations on CPUs take no other layout, and do not say so."""
    ours, _ = pair(depth=18, **FROZEN)
    ours.train(training)
    assert all(out.is_contiguous() for out in ours(torch.zeros(2, 3, 64, 96, dtype=torch.float64)))


def test_faster_rcnn_finds_the_same_with_either_backbone():
    found = []
    for kind in ('mmdet.ResNet', 'mmdet_detr_plugin.FoldedResNet'):
        cfg = Config.fromfile(ROOT / 'configs' / 'shapes' / 'faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py').model
        cfg.backbone.type = kind
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        model.eval()
        torch.manual_seed(1)
        batch = make_batch([(128, 128)], [2])
        with torch.no_grad():
            found.append(model.predict(batch['batch_inputs'], batch['batch_data_samples'])[0].pred_instances)
    assert len(found[0]) > 0
    torch.testing.assert_close(found[1].scores, found[0].scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].bboxes, found[0].bboxes, atol=1e-2, rtol=0)
