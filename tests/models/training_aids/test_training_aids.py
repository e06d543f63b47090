"""Training aids and better starts: what they give, and that nothing of them is left at inference."""

import copy

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config

from mmdet_detr_plugin.benchmark.flops import giga_multiply_adds
from mmdet_detr_plugin.config_files import config_path
from mmdet_detr_plugin.models.queries import Queries, concatenate, grid_points
from mmdet_detr_plugin.models.transformer_neck import TransformerNeck

from ...builders import MMDET_HEAD, NUM_CLASSES, build, detr_config, make_batch

SHAPES = [(96, 160), (128, 90)]
DENSE = dict(num_classes=NUM_CLASSES, in_channels=32, feat_channels=32, stacked_convs=1)
BOTTOM = dict(allowed_border=-1, pos_weight=-1, debug=False)
LEARNED = dict(type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=16)
HEADS = dict(
    rtmdet=dict(
        type='RTMDetHead',
        with_objectness=False,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13), **BOTTOM),
        **DENSE,
    ),
    atss=dict(
        type='ATSSHead',
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=2, scales_per_octave=1, strides=[32]),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), **BOTTOM),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        reg_decoded_bbox=True,
        norm_cfg=None,
        **DENSE,
    ),
    fcos=dict(type='FCOSHead', strides=[32], regress_ranges=((-1, 1e8),), norm_cfg=None, **DENSE),
)
AIDS = dict(
    dense=dict(type='mmdet_detr_plugin.DenseHeads', heads=dict(rtmdet=HEADS['rtmdet'])),
    groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2),
    denoising=dict(type='mmdet_detr_plugin.DenoisingQueries', num_classes=NUM_CLASSES, jitter=dict(copies=2)),
)


def aided_config(names=tuple(AIDS), **neck) -> dict:
    config = detr_config(neck=dict(dropout=0.0, **neck))
    config['training_aids'] = {name: AIDS[name] for name in names}
    return config


def pair(**neck):
    """DETR without and with aids, equal otherwise."""
    plain = build(detr_config(neck=dict(dropout=0.0, **neck)), randomize_norms=True).eval()
    aided = build(aided_config(**neck)).eval()
    missing, unexpected = aided.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all(name.startswith('training_aids.') for name in missing)
    return plain, aided


@pytest.mark.parametrize('neck', [{}, dict(reference_points='grid'), dict(reference_points='learned')], ids=str)
def test_nothing_is_left_at_inference(neck):
    """The same keys once stripped, the same multiply-adds, the same detections; and the own losses do not know of the aids."""
    plain, aided = pair(**neck)
    assert {name for name in aided.state_dict() if not name.startswith('training_aids.')} == set(plain.state_dict())
    batch = make_batch(SHAPES, [4, 2])
    for ours, theirs in zip(aided.predict(**copy.deepcopy(batch)), plain.predict(**copy.deepcopy(batch)), strict=True):
        assert torch.equal(ours.pred_instances.bboxes, theirs.pred_instances.bboxes)
        assert torch.equal(ours.pred_instances.scores, theirs.pred_instances.scores)
    work = [giga_multiply_adds(lambda model=model: model.predict(**copy.deepcopy(batch))) for model in (plain, aided)]
    assert work[0] == work[1] > 0
    losses, more = plain.loss(**batch), aided.loss(**batch)
    for name, value in losses.items():
        torch.testing.assert_close(more[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert {name.split('.')[0] for name in more.keys() - losses.keys()} == set(AIDS)


@pytest.mark.parametrize('counts', [[4, 2], [0, 3], [0, 0]], ids=str)
def test_every_parameter_gets_a_gradient_and_losses_have_the_same_names(counts):
    """Also where no image has an object, so that several processes never wait for each other."""
    model = build(aided_config(reference_points='learned'), randomize_norms=True).train()
    losses = model.loss(**make_batch(SHAPES, counts))
    assert losses.keys() == model.loss(**make_batch(SHAPES, [1, 1])).keys()
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    if sum(counts):
        still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
        assert all('attn.in_proj_bias' in name or 'self_attn' in name for name in still), still


@pytest.mark.parametrize('kind', HEADS)
def test_dense_heads_of_mmdet_plug_in(kind):
    config = detr_config()
    config['training_aids'] = dict(dense=dict(type='mmdet_detr_plugin.DenseHeads', heads={kind: HEADS[kind]}, loss_weight=0.5))
    model = build(config).train()
    batch = make_batch(SHAPES, [4, 2])
    torch.manual_seed(1)
    losses = model.loss(**batch)
    model.training_aids['dense'].loss_weight = 1.0
    torch.manual_seed(1)
    twice = model.loss(**batch)
    names = [name for name in losses if name.startswith(f'dense.{kind}.loss_')]
    assert len(names) >= 2
    for name in names:
        torch.testing.assert_close(2 * sum(losses[name]), sum(twice[name]))


def with_stride(head: dict, stride: int) -> dict:
    head = copy.deepcopy(head)
    head.get('anchor_generator', head)['strides'] = [stride]
    return head


@pytest.mark.parametrize('kind, shapes', [*((kind, SHAPES) for kind in HEADS), ('fcos', [(97, 131)]), ('fcos', [(255, 129)])], ids=str)
def test_a_dense_head_of_another_stride_than_the_memory_is_refused(kind, shapes):
    """As when the backbone becomes ResNetDC5; sizes that no stride divides are those of the map rounded up."""
    for backbone, right, wrong in (('FoldedResNet', 32, 16), ('ResNetDC5', 16, 32)):
        heads = {stride: with_stride(HEADS[kind], stride) for stride in (right, wrong)}
        cfg = detr_config(backbone=dict(type=f'mmdet_detr_plugin.{backbone}'))
        cfg['training_aids'] = {f'of_{stride}': dict(type='mmdet_detr_plugin.DenseHeads', heads={kind: heads[stride]}) for stride in heads}
        batch = make_batch(shapes, [2] * len(shapes))
        with pytest.raises(ValueError, match=rf"dense head '{kind}' has strides=.*{wrong}.*Write strides=\[{right}\]"):
            build(cfg).loss(**batch)
        del cfg['training_aids'][f'of_{wrong}']
        assert f'of_{right}.{kind}.loss_cls' in build(cfg).loss(**batch)


def test_dense_heads_are_initialised_with_the_model():
    """Scores begin near zero, as focal loss needs it."""
    model = build(aided_config(['dense']))
    model.init_weights()
    torch.testing.assert_close(model.training_aids['dense'].heads['rtmdet'].rtm_cls.bias.sigmoid(), torch.full((NUM_CLASSES,), 0.01))


def test_a_group_that_equals_the_own_queries_has_their_losses():
    model = build(aided_config(['groups']), randomize_norms=True).eval()
    aid = model.training_aids['groups']
    aid.query_embed.weight.data.copy_(model.neck.query_embed.weight.repeat(2, 1))
    losses = model.loss(**make_batch(SHAPES, [4, 2]))
    own = [name for name in losses if not name.startswith('groups.')]
    assert len(own) == 9
    for name in own:
        torch.testing.assert_close(losses[f'groups.{name}'], losses[name], rtol=1e-4, atol=1e-5, msg=name)


def test_denoising_teaches_near_copies_their_object_and_far_ones_that_there_is_none():
    model = build(aided_config(['denoising']), randomize_norms=True).eval()
    aid, batch = model.training_aids['denoising'], make_batch(SHAPES, [3, 1])
    seen = {}
    original = model.bbox_head.losses_of_pairs

    def spy(logits, boxes, pairs, targets, log_probability, weights=None):
        if weights is not None:
            seen.update(logits=logits, weights=weights)
            logits.retain_grad()
        return original(logits, boxes, pairs, targets, log_probability, weights)

    model.bbox_head.losses_of_pairs = spy
    losses = model.loss(**batch)
    sum(value for name, value in losses.items() if name.startswith('denoising.') and 'cls' in name).backward()
    grad = seen['logits'].grad  # (L, B, Q, K+1)
    labels = batch['batch_data_samples'][0].gt_instances.labels
    near, far = grad[:, 0].view(3, 2, 2, 3, NUM_CLASSES + 1).unbind(2)  # (L, copies, T, K+1)
    raised = torch.zeros_like(near, dtype=torch.bool).scatter_(-1, labels.view(1, 1, 3, 1).expand(3, 2, 3, 1), True)
    assert (near[raised] < 0).all() and (near[~raised] > 0).all()  # the object's class should rise, all others fall
    counted = (seen['weights'][0].view(2, 2, 3)[:, 1] > 0).expand(3, 2, 3)
    assert (far[..., -1][counted] < 0).all() and (far[..., :-1][counted] > 0).all()
    assert (grad[:, 1, 4:] == 0).all() and (grad[:, 1, :4] != 0).any()  # the second image has one object: two near and two far copies
    assert aid.jittered is None and seen['weights'].unique().tolist() in ([0, 0.5], [0.5])


def test_queries_start_at_the_points_of_a_grid():
    model = build(detr_config(neck=dict(reference_points='grid', num_queries=9, dropout=0.0), bbox_head=dict(zero_init_boxes=True))).eval()
    _, boxes = model(inputs=torch.randn(1, 3, 96, 96), mode='tensor')
    points = torch.tensor([[x, y] for y in (1 / 6, 0.5, 5 / 6) for x in (1 / 6, 0.5, 5 / 6)])
    torch.testing.assert_close(boxes[-1, 0, :, :2], points)
    assert torch.equal(boxes[..., 2:], torch.full_like(boxes[..., 2:], 0.5))
    # a cell of a 3 x 3 map in the same place has the same encoding, but for the maps' counting of cells from one
    encoding = model.neck.position_encoding
    assert torch.equal(model.neck.query_embed.weight, encoding.encode_points(points))
    cell = encoding(torch.zeros(1, 32, 3, 3), None)[0, :, 1, 2]  # the last column, the middle row
    torch.testing.assert_close(encoding.encode_points(torch.tensor([1.0, 2 / 3])), cell, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('number', [1, 2, 10, 100, 300])
def test_grid_points_are_spread_evenly(number):
    points = grid_points(number)
    assert points.shape == (number, 2) and points.min() > 0 and points.max() < 1
    torch.testing.assert_close(points.mean(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.05)
    assert number == 1 or torch.cdist(points, points).add(torch.eye(number)).min() > 0.6 / number**0.5


def test_looking_near_starts_with_equal_projections():
    neck = TransformerNeck(8, embed_dims=16, num_heads=2, num_queries=4, look_near=2.0)
    for layer in neck.decoder.layers:
        queries, keys, _ = layer.multihead_attn.in_proj_weight.detach().chunk(3)
        assert torch.equal(queries, keys)
        assert float(queries.std()) == pytest.approx(2 * float(layer.self_attn.in_proj_weight.std()), rel=0.2)
        assert not torch.equal(*layer.self_attn.in_proj_weight.chunk(3)[:2])


@pytest.mark.parametrize(
    'changes, least, most',
    [({}, 0.6, 1.0), (dict(look_near=0.0), 0.0, 0.2), (dict(position_encoding=dict(scale=6.28)), 0.0, 0.4)],
    ids=['shipped', 'independent projections', 'long waves'],
)
def test_untrained_queries_of_the_shipped_neck_attend_near_their_points(changes, least, most):
    config = Config.fromfile(config_path('detr-aided_r18-half_1xb4-10e_shapes'))
    config.merge_from_dict(dict(model=dict(neck=changes)))
    neck = MMDET_MODELS.build(config.model.neck)
    encoded = neck.encode(torch.randn(1, neck.in_channels, 20, 20))
    layer = neck.decoder.layers[0].multihead_attn
    with torch.no_grad():
        q, k, _ = layer.project(neck.query_embed.weight[None], encoded.memory + encoded.pos, encoded.memory)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1).mean(1)[0]  # (Q, N)
    ends = (torch.arange(20) + 1) / 20
    cells = torch.stack((ends.repeat(20), ends.repeat_interleave(20)), dim=-1)  # (N, 2), x and y
    near = torch.cdist(neck.reference_logits[0].sigmoid(), cells, p=torch.inf) < 0.15  # 9 % of the image, or less at its border
    assert least <= (weights * near).sum(1).mean() <= most


def test_parts_do_not_see_each_other():
    parts = [Queries(torch.zeros(1, size, 4), torch.zeros(1, size, 4)) for size in (2, 3)]
    parts.append(Queries(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), None, torch.tensor([0, 0, 1, 1])))
    whole, mask = concatenate(parts, num_images=2)
    groups = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
    assert len(whole) == 9 and mask.shape == (1, 1, 9, 9)
    assert torch.equal(mask[0, 0], groups[:, None] == groups)
    alone, mask = concatenate(parts[:1], num_images=2)
    assert mask is None and alone is parts[0]


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(bbox_head=MMDET_HEAD), "training_aids needs the plugin's TransformerNeck and DETRHead"),
        (dict(neck=dict(reference_points='random')), "reference_points must be 'grid', 'learned' or None, got 'random'"),
        (
            dict(neck=dict(reference_points='grid', position_encoding=LEARNED)),
            'needs SinePositionEncoding, got LearnedPositionEncoding',
        ),
        (dict(training_aids=dict(groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=0))), 'must be at least 1, got 0'),
    ],
    ids=['head', 'kind', 'encoding', 'groups'],
)
def test_wrong_settings_say_so(changes, message):
    config = detr_config(**changes)
    config.setdefault('training_aids', dict(groups=AIDS['groups']))
    if 'mmdet.' in config['bbox_head']['type']:
        config['bbox_head'].update(
            loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0)
        )
    with pytest.raises(ValueError, match=message):
        build(config)
