"""The detector as a whole: parity with mmdet's DETR, exchange of parts, invariances, gradients."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_detr_plugin.models.detector import feature_padding_mask

from ..builders import NUM_CLASSES, build, detr_config, make_batch
from .mmdet_names import to_mmdet

SHAPES = [(96, 160), (128, 90)]  # both images are padded, on different sides


def mmdet_config(**changes) -> dict:
    """mmdet's DETR in the same small size, without dropout."""
    attention = dict(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True)
    ffn = dict(embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))
    config = dict(
        type='mmdet.DETR',
        num_queries=10,
        data_preprocessor=detr_config()['data_preprocessor'],
        backbone={**detr_config()['backbone'], 'type': 'ResNet'},
        neck=dict(type='ChannelMapper', in_channels=[512], kernel_size=1, out_channels=32, act_cfg=None, norm_cfg=None, num_outs=1),
        encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn), return_intermediate=True
        ),
        positional_encoding=dict(num_feats=16, normalize=True),
        bbox_head=dict(
            type='mmdet.DETRHead',
            num_classes=NUM_CLASSES,
            embed_dims=32,
            loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=5.0),
            loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='ClassificationCost', weight=1.0),
                    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                    dict(type='IoUCost', iou_mode='giou', weight=2.0),
                ],
            )
        ),
        test_cfg=dict(max_per_img=10),
    )
    config.update(changes)
    return config


def outputs_of(model, batch):
    """Class logits and boxes of all layers, for either detector."""
    if type(model).__module__.startswith('mmdet.'):
        feats = model.extract_feat(batch['batch_inputs'])
        return model.bbox_head(**model.forward_transformer(feats, batch['batch_data_samples']))
    return model(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')


@pytest.fixture
def pair():
    """The plugin's DETR and mmdet's with equal weights, no dropout."""
    ours = build(detr_config(neck=dict(dropout=0.0)), randomize_norms=True).eval()
    theirs = build(mmdet_config()).eval()
    theirs.load_state_dict(to_mmdet(ours.state_dict()), strict=True)
    return ours, theirs


def test_outputs_and_losses_of_all_layers_equal_mmdets(pair):
    ours, theirs = pair
    batch = make_batch(SHAPES, [4, 2])
    for our, their in zip(outputs_of(ours, batch), outputs_of(theirs, batch)):
        assert our.shape == their.shape and len(our) == 3
        torch.testing.assert_close(our, their, rtol=0, atol=1e-4)
    losses, expected = ours.loss(**batch), theirs.loss(**batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_equal_mmdets(pair):
    ours, theirs = pair
    batch = make_batch(SHAPES, [4, 2])
    for model in pair:
        sum(model.loss(**batch).values()).backward()
    theirs = dict(theirs.named_parameters())
    for (name, parameter), (mmdet_name, _) in zip(ours.named_parameters(), to_mmdet(dict(ours.named_parameters())).items()):
        scale = theirs[mmdet_name].grad.abs().max().clamp(min=1e-3)
        torch.testing.assert_close(parameter.grad / scale, theirs[mmdet_name].grad / scale, rtol=0, atol=1e-3, msg=name)


def test_predictions_equal_mmdets(pair):
    results = [model.predict(**copy.deepcopy(make_batch(SHAPES, [4, 2]))) for model in pair]
    for our, their in zip(*results):
        our, their = our.pred_instances, their.pred_instances
        torch.testing.assert_close(our.scores, their.scores, rtol=0, atol=1e-4)
        assert torch.equal(our.labels, their.labels)
        torch.testing.assert_close(our.bboxes, their.bboxes, rtol=0, atol=1e-2)


@pytest.mark.parametrize('outer, inner', [('mmdet', 'plugin'), ('plugin', 'mmdet')])
def test_heads_work_in_each_others_detectors(pair, outer, inner):
    """The plugin's head inside mmdet's DETR, and mmdet's head inside the plugin's detector, change no loss and no box."""
    ours, theirs = pair
    host, guest = (theirs, ours) if outer == 'mmdet' else (ours, theirs)
    if outer == 'mmdet':
        config = mmdet_config(bbox_head={**mmdet_config()['bbox_head'], 'type': 'mmdet_detr_plugin.DETRHead'})
    else:
        config = detr_config(neck=dict(dropout=0.0), bbox_head=mmdet_config()['bbox_head'])
        config.update({key: mmdet_config()[key] for key in ('train_cfg', 'test_cfg')})
    mixed = build(config).eval()
    weights = {name: value for name, value in host.state_dict().items() if not name.startswith('bbox_head.')}
    weights.update({name: value for name, value in guest.state_dict().items() if name.startswith('bbox_head.')})
    mixed.load_state_dict(weights, strict=True)
    batch = make_batch(SHAPES, [4, 2])
    losses, expected = mixed.loss(**batch), ours.loss(**batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6, msg=name)
    predicted = mixed.predict(**make_batch(SHAPES, [4, 2]))
    for sample, other in zip(predicted, ours.predict(**make_batch(SHAPES, [4, 2]))):
        torch.testing.assert_close(sample.pred_instances.bboxes, other.pred_instances.bboxes, rtol=0, atol=1e-2)


def test_parts_may_be_named_by_their_classes():
    """As in mmengine's pure Python configs."""
    from mmdet.models.losses import CrossEntropyLoss, FocalLoss, GIoULoss, L1Loss

    from mmdet_detr_plugin.models.detr_head import DETRHead
    from mmdet_detr_plugin.models.hungarian_assigner import HungarianAssigner

    cls = dict(type=CrossEntropyLoss, bg_cls_weight=0.2, use_sigmoid=False, loss_weight=3.0, class_weight=1.0)
    losses = dict(loss_cls=cls, loss_bbox=dict(type=L1Loss, loss_weight=4.0), loss_iou=dict(type=GIoULoss, loss_weight=2.0))
    head = build(detr_config(bbox_head=dict(type=DETRHead, train_cfg=dict(assigner=dict(type=HungarianAssigner)), **losses))).bbox_head
    assert head.loss_weights == dict(loss_cls=3.0, loss_bbox=4.0, loss_iou=2.0) and head.class_weight[-1] == 0.2
    with pytest.raises(ValueError, match='loss_cls must be CrossEntropyLoss'):
        build(detr_config(bbox_head=dict(loss_cls={**cls, 'type': FocalLoss})))


@pytest.mark.parametrize('pre_norm', [False, True])
def test_padding_batch_order_and_batch_size_do_not_change_neck_and_head(pre_norm):
    """Given the same features: random numbers in padded cells, other partners and other positions in the batch change nothing."""
    model = build(detr_config(neck=dict(pre_norm=pre_norm)), randomize_norms=True).eval()
    sizes = [(3, 5), (4, 2), (4, 5)]
    feats = [torch.randn(512, *size) for size in sizes]

    def run(order, fill):
        batch, mask = fill(torch.empty(len(order), 512, 4, 5)), torch.ones(len(order), 4, 5, dtype=torch.bool)
        for slot, index in enumerate(order):
            h, w = sizes[index]
            batch[slot, :, :h, :w], mask[slot, :h, :w] = feats[index], False
        hidden_states, memory = model.neck(batch, mask)
        logits, boxes = model.bbox_head(hidden_states)
        return {
            index: (logits[:, slot], boxes[:, slot], memory[slot, :, : sizes[index][0], : sizes[index][1]])
            for slot, index in enumerate(order)
        }

    alone = {}
    for index in range(3):
        hidden_states, memory = model.neck(feats[index][None], None)
        logits, boxes = model.bbox_head(hidden_states)
        alone[index] = (logits[:, 0], boxes[:, 0], memory[0])
    for order, fill in (([0, 1, 2], torch.zero_), ([2, 0, 1], lambda x: x.normal_(std=10)), ([1, 0], lambda x: x.fill_(1e3))):
        for index, values in run(order, fill).items():
            for value, expected in zip(values, alone[index]):
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


def test_feature_padding_mask_equals_resized_pixel_mask():
    for batch_shape in ((100, 133), (800, 1333), (97, 64), (33, 31)):
        feat_shape = tuple(-(-side // 32) for side in batch_shape)
        img_shapes = [batch_shape, (batch_shape[0] - 1, batch_shape[1]), (batch_shape[0] // 2, batch_shape[1] // 3 + 1), (1, 1), (32, 31)]
        pixels = torch.ones(len(img_shapes), 1, *batch_shape)
        for mask, (h, w) in zip(pixels, img_shapes):
            mask[0, :h, :w] = 0
        expected = nn.functional.interpolate(pixels, size=feat_shape)[:, 0].bool()
        assert torch.equal(feature_padding_mask(img_shapes, batch_shape, feat_shape, pixels.device), expected)
    assert feature_padding_mask([(64, 64)] * 2, (64, 64), (2, 2), pixels.device) is None


def test_image_larger_than_its_batch_is_refused():
    with pytest.raises(ValueError, match='img_shape of a data sample exceeds the batch'):
        feature_padding_mask([(65, 64)], (64, 64), (2, 2), torch.device('cpu'))


def test_every_parameter_gets_gradient():
    model = build(detr_config())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    # What starts at zero holds back its neighbours until it has moved once: residual branches of mmdet's ResNet, biases of attention (the
    # queries enter the first decoder layer as zeros, so its self-attention sees nothing else).
    for _ in range(2):
        optimizer.zero_grad()
        sum(model.loss(**make_batch(SHAPES, [4, 2])).values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]


def test_one_object_none_and_too_many_train_and_predict():
    model = build(detr_config())
    model.bbox_head.assigner._warned = True
    for counts in ([0, 0], [1, 0], [1, 30]):
        losses = model.loss(**make_batch(SHAPES, counts))
        total = sum(losses.values())
        assert torch.isfinite(total)
        model.zero_grad()
        total.backward()
        assert model.neck.query_embed.weight.grad.any()


def test_all_queries_are_returned_best_first_inside_the_image():
    model = build(detr_config()).eval()
    for sample in model.predict(**make_batch(SHAPES, [1, 1])):
        instances = sample.pred_instances
        assert len(instances) == 10 and (instances.scores.diff() <= 0).all()
        height, width = sample.ori_shape
        assert (instances.bboxes >= 0).all() and (instances.bboxes <= torch.tensor([width, height] * 2)).all()
        assert (instances.labels >= 0).all() and (instances.labels < NUM_CLASSES).all()


@pytest.mark.parametrize('limit, expected', [(3, 3), (100, 10), (None, 10)])
def test_max_per_img_is_clamped_to_the_number_of_queries(limit, expected):
    model = build(detr_config(test_cfg=dict(max_per_img=limit))).eval()
    assert len(model.predict(**make_batch(SHAPES, [1, 1]))[0].pred_instances) == expected


def test_building_twice_works_and_leaves_the_config_alone():
    for config in (detr_config(), detr_config(bbox_head=mmdet_config()['bbox_head'], train_cfg=mmdet_config()['train_cfg'])):
        before = copy.deepcopy(config)
        first, second = MODELS.build(config), MODELS.build(config)
        assert config == before
        assert first.state_dict().keys() == second.state_dict().keys()
        first.init_weights()
        assert config == before


def test_official_parameter_shapes():
    """Names and shapes the official checkpoint can be renamed to, in the paper's size."""
    neck = MODELS.build(dict(type='mmdet_detr_plugin.TransformerNeck', in_channels=2048))
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=91))
    shapes = {name: tuple(value.shape) for module in (neck, head) for name, value in module.state_dict().items()}
    assert shapes['input_proj.weight'] == (256, 2048, 1, 1)
    assert shapes['encoder.layers.5.self_attn.in_proj_weight'] == (768, 256)
    assert shapes['encoder.layers.5.linear1.weight'] == (2048, 256)
    assert shapes['decoder.layers.5.multihead_attn.out_proj.weight'] == (256, 256)
    assert shapes['decoder.layers.5.norm3.bias'] == shapes['decoder.norm.bias'] == (256,)
    assert shapes['query_embed.weight'] == (100, 256)
    assert shapes['fc_cls.weight'] == (92, 256) and shapes['box_mlp.layers.2.weight'] == (4, 256)
    # weights and biases: 6 encoder layers of 12, 6 decoder layers of 18, decoder norm, input projection, queries, head
    assert len(shapes) == 6 * 12 + 6 * 18 + 2 + 2 + 1 + 2 + 6


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(neck=dict(num_heads=5)), 'embed_dims must be divisible by num_heads, got 32 and 5'),
        (
            dict(neck=dict(position_encoding=dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=8))),
            'set position_encoding.num_feats=16',
        ),
        (dict(bbox_head=dict(embed_dims=64)), 'neck.embed_dims is 32, bbox_head.embed_dims is 64'),
        (dict(bbox_head=dict(num_classes=0)), 'num_classes counts the classes without no-object'),
        (dict(bbox_head=dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True))), 'loss_cls must be CrossEntropyLoss'),
        (dict(bbox_head=dict(loss_bbox=dict(type='SmoothL1Loss'))), 'loss_bbox must be L1Loss'),
    ],
)
def test_wrong_config_is_refused_with_what_to_do(change, message):
    with pytest.raises(ValueError, match=message):
        build(detr_config(**change))


def test_wrong_backbone_channels_are_named():
    with pytest.raises(ValueError, match='expects 99 input channels, the backbone gives 512; set model.neck.in_channels=512'):
        build(detr_config(neck=dict(in_channels=99))).loss(**make_batch(SHAPES, [1, 1]))


def test_autocast_keeps_boxes_and_losses_in_float32():
    model = build(detr_config(neck=dict(dropout=0.0))).eval()
    expected_losses = model.loss(**make_batch(SHAPES, [4, 2]))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits, boxes = outputs_of(model, make_batch(SHAPES, [4, 2]))
        losses = model.loss(**make_batch(SHAPES, [4, 2]))
        predicted = model.predict(**make_batch(SHAPES, [4, 2]))[0].pred_instances
    assert logits.dtype == torch.bfloat16 and boxes.dtype == predicted.bboxes.dtype == predicted.scores.dtype == torch.float32
    assert boxes.unique().numel() > 0.9 * boxes.numel()  # bfloat16 has 8 bits: values would coincide
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected_losses[name], rtol=0.1, atol=0.1)
