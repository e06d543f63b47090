"""Recorded attention is the layers' own: the softmax as torch and as hand-written sums compute it, with nothing changed or left behind."""

import copy
import math

import pytest
import torch
from torch import nn

from mmdet_detr_plugin.models.local_detr.relation_attention import RelationAttention
from mmdet_detr_plugin.models.transformer import MultiheadAttention
from mmdet_detr_plugin.visualization.attention import LayerAttention, has_attention, record_attention

from ..builders import MMDET_HEAD, build, detr_config, make_batch
from ..models.local_detr.test_detector import config as local_config

SHAPES = [(96, 160), (160, 96)]  # in a batch both are padded
KINDS = ('encoder', 'cross', 'queries')


def modules_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    layers = model.neck.encoder.layers
    if hasattr(model.neck, 'decoder'):
        decoder = model.neck.decoder.layers
        cross = [layer.multihead_attn for layer in decoder]
    else:
        decoder, cross = model.bbox_head.layers, []
    return dict(zip(KINDS, ([layer.self_attn for layer in layers], cross, [layer.self_attn for layer in decoder])))


def built(kind: str) -> nn.Module:
    torch.manual_seed(0)
    configs = dict(
        detr=detr_config(),
        pre_norm=detr_config(neck=dict(pre_norm=True)),
        points=detr_config(neck=dict(reference_points='grid')),
        mmdet_head=detr_config(bbox_head=MMDET_HEAD),
        local=local_config(),
    )
    model = build(configs[kind], randomize_norms=True).eval()
    for module in model.modules():
        if isinstance(module, MultiheadAttention):  # at their initial zeros, errors in them would not show
            nn.init.normal_(module.in_proj_bias, std=0.5)
            module.in_proj_weight.data.mul_(2)
    return model


@pytest.fixture(params=['detr', 'pre_norm', 'local'])
def recorded(request):
    """Model, record, and the inputs and outputs of its attention modules in this pass."""
    model, seen = built(request.param), {}
    handles = [
        module.register_forward_hook(lambda module, args, output: seen.update({module: (args, output)}))
        for group in modules_of(model).values()
        for module in group
    ]
    with torch.no_grad(), record_attention(model) as record:
        model._forward(*make_batch(SHAPES, [1, 1]).values())
    for handle in handles:
        handle.remove()
    return model, record, seen


@torch.no_grad()
def softmax_by_torch(module: MultiheadAttention, args: tuple) -> torch.Tensor:
    """(B, H, Q, N) by ``nn.MultiheadAttention``."""
    query, key, value, attend_mask = args
    oracle = nn.MultiheadAttention(query.shape[-1], module.num_heads, batch_first=True)
    oracle.load_state_dict(module.state_dict())
    padding = None if attend_mask is None else ~attend_mask[:, 0, 0]
    return oracle(query, key, value, key_padding_mask=padding, average_attn_weights=False)[1]


@torch.no_grad()
def softmax_by_hand(module: RelationAttention, args: tuple) -> torch.Tensor:
    """(B, H, Q, Q), with the bias of each pair."""
    located, _, features, _ = args
    dims = located.shape[-1]
    q, k = (located @ w.T + b for w, b in zip(module.in_proj_weight.split(dims), module.in_proj_bias.split(dims)[:2]))
    heads = zip(q.chunk(module.num_heads, -1), k.chunk(module.num_heads, -1), module.relation_bias.weight, module.relation_bias.bias)
    relation = (features @ module.relation.weight.T + module.relation.bias).relu()
    scores = [one @ other.mT / one.shape[-1] ** 0.5 + relation @ weight + bias for one, other, weight, bias in heads]
    return torch.stack(scores, 1).exp() / torch.stack(scores, 1).exp().sum(-1, keepdim=True)


def layers(recorded):
    model, record, seen = recorded
    for kind, group in modules_of(model).items():
        kept = getattr(record, kind)
        assert len(kept) == len(group)
        yield from ((kind, module, attention, *seen[module]) for module, attention in zip(group, kept))


def test_weights_equal_the_softmax_recomputed_independently(recorded):
    for kind, module, attention, args, _ in layers(recorded):
        oracle = softmax_by_hand if isinstance(module, RelationAttention) else softmax_by_torch
        expected = oracle(module, args)
        for image in (0, 1):
            torch.testing.assert_close(attention.weights(image, per_head=True), expected[image], atol=1e-6, rtol=1e-4, msg=kind)
            torch.testing.assert_close(attention.weights(image), expected[image].mean(0), atol=1e-6, rtol=1e-4, msg=kind)
        assert expected[0].std(-1).mean() > 0.1 / expected.shape[-1]  # or an even spread would pass


@torch.no_grad()
def test_weights_give_the_outputs_of_the_fused_kernel(recorded):
    for kind, module, attention, args, output in layers(recorded):
        if isinstance(module, RelationAttention):
            continue  # has no fused kernel
        value = args[2] @ module.in_proj_weight[-args[2].shape[-1] :].T + module.in_proj_bias[-args[2].shape[-1] :]
        for image in (0, 1):
            heads = value[image].unflatten(-1, (module.num_heads, -1)).transpose(0, 1)  # (H, N, D/H)
            found = module.out_proj((attention.weights(image, per_head=True) @ heads).transpose(0, 1).flatten(1))
            torch.testing.assert_close(found, output[image], atol=1e-5, rtol=1e-4, msg=kind)


def test_rows_have_the_sum_one_and_padding_gets_exactly_zero(recorded):
    _, record, _ = recorded
    height, width = record.map_size
    for kind, _, attention, _, _ in layers(recorded):
        for image, (rows, columns) in enumerate([(height * 96 // 160, width), (height, width * 96 // 160)]):
            weights = attention.weights(image)
            torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
            if kind != 'queries':
                cells = weights.unflatten(-1, (height, width))
                assert (cells[:, rows:] == 0).all() and (cells[:, :, columns:] == 0).all() and (cells[:, :rows, :columns] > 0).all()


def test_chosen_rows_are_rows_of_the_whole(recorded):
    for _, _, attention, _, _ in layers(recorded):
        torch.testing.assert_close(attention.weights(1, [3, 0]), attention.weights(1)[[3, 0]])
        assert attention.weights(1, []).shape == (0, attention.k.shape[2])
        torch.testing.assert_close(attention.weights(0, [2], per_head=True), attention.weights(0, per_head=True)[:, [2]])


@pytest.mark.parametrize('images', [1, 2])
def test_masks_between_queries_hold_row_by_row(images):
    """As training aids make them: (B or 1, 1, Q, Q)."""
    generator = torch.Generator().manual_seed(0)
    q, k, bias = (torch.randn(2, 3, 5, size, generator=generator) for size in (4, 4, 5))
    mask = torch.rand(images, 1, 5, 5, generator=generator) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    weights = LayerAttention(q, k, mask, bias).weights(1, [4, 1], per_head=True)
    for head in range(3):
        for row, source in zip(weights[head], (4, 1), strict=True):
            products = q[1, head, source] @ k[1, head].T / 2 + bias[1, head, source]
            scores = {n: float(products[n]) for n in range(5) if mask[-1, 0, source, n]}
            total = sum(math.exp(score) for score in scores.values())
            expected = [math.exp(scores[n]) / total if n in scores else 0.0 for n in range(5)]
            torch.testing.assert_close(row, torch.tensor(expected))


@pytest.mark.parametrize('kind', ['detr', 'points', 'mmdet_head', 'local'])
def test_outputs_stay_bit_for_bit_and_nothing_is_left_on_the_model(kind):
    model, batch = built(kind), make_batch(SHAPES, [1, 1])

    def state():
        hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module))) for module in model.modules()]
        return hooks, {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()

    with torch.no_grad():
        expected = model._forward(*batch.values())
        before = state()
        with record_attention(model) as record:
            found = model._forward(*batch.values())
    after = state()
    assert all(map(torch.equal, expected, found))
    assert before[0] == after[0] and torch.equal(before[2], after[2])
    assert all(torch.equal(value, after[1][name]) for name, value in before[1].items())
    assert torch.equal(record.logits, expected[0]) and torch.equal(record.boxes_cxcywh_norm, expected[1])
    with pytest.raises(ZeroDivisionError), record_attention(model):
        raise ZeroDivisionError
    assert state()[0] == before[0]


def test_record_holds_the_last_pass(recorded):
    model, _, _ = recorded
    one, other = make_batch([(96, 128)], [0]), make_batch([(64, 64)], [0], seed=1)
    with torch.no_grad(), record_attention(model) as record:
        model._forward(*one.values())
        model._forward(*other.values())
        expected = model._forward(*other.values())
    assert record.encoder[0].q.shape[2] == record.map_size[0] * record.map_size[1] < 96 * 128 // 16**2
    assert torch.equal(record.logits, expected[0])


def test_half_precision_keeps_rows_at_one():
    model = built('detr')
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16), record_attention(model) as record:
        model._forward(*make_batch(SHAPES, [1, 1]).values())
    weights = record.cross[0].weights(1)
    assert record.cross[0].q.dtype == torch.bfloat16 and weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(10))


def test_compiled_model_is_recorded_too():
    config = detr_config()
    config['compile_transformer'] = dict(backend='eager')
    model, batch = build(config).eval(), make_batch([(64, 64)], [0])
    with torch.no_grad():
        expected = model._forward(*copy.deepcopy(batch).values())  # compiled without hooks
        with record_attention(model) as record:
            model._forward(*batch.values())
    assert None not in (*record.encoder, *record.cross, *record.queries)
    torch.testing.assert_close(record.logits, expected[0])


def test_regions_of_local_detr_are_those_of_the_boxes_before(recorded):
    """From the second layer on: the box of the layer before with ``view_scale`` times its sides, as fractions of the padded batch."""
    model, record, _ = recorded
    if not record.regions:
        assert record.cross  # what is shown of the other models instead
        return
    scale = torch.tensor([[1, 96 / 160] * 2, [96 / 160, 1] * 2])[:, None]  # (width, height) of each image in the batch
    for before, region in zip(record.boxes_cxcywh_norm, record.regions[1:], strict=False):
        expected = before * scale * torch.tensor([1, 1, model.bbox_head.view_scale, model.bbox_head.view_scale])
        torch.testing.assert_close(region, expected)
    assert len(record.regions) == len(record.boxes_cxcywh_norm) and record.cross == []


def test_other_models_are_refused_with_the_models_that_have_it():
    demo = detr_config(neck=dict(type='mmdet_detr_plugin.DemoNeck', num_decoder_layers=1))
    for model, name in ((build(demo), 'DETR with DemoNeck'), (nn.Linear(1, 1), 'torch.nn.modules.linear.Linear')):
        assert not has_attention(model)
        with pytest.raises(ValueError, match=f'DETR with a TransformerNeck and of its LocalDETR, got .*{name}'), record_attention(model):
            pass
