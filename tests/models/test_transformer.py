"""Transformer layers and position encodings against independent implementations."""

import contextlib
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from torch import nn

from mmdet_detr_plugin.models import transformer
from mmdet_detr_plugin.models.backbones import ResNetDC5
from mmdet_detr_plugin.models.position_encoding import LearnedPositionEncoding, SinePositionEncoding
from mmdet_detr_plugin.models.transformer import DecoderLayer, EncoderLayer

from ..builders import randomize_norm_layers

SIZES = dict(embed_dims=32, num_heads=4, feedforward_channels=48, dropout=0.0)


@pytest.mark.parametrize('pre_norm', [False, True])
def test_layers_equal_torchs_without_positions(pre_norm):
    """torch's own layers know no position terms; with positions of zero both must agree, in outputs and gradients."""
    x, memory = torch.randn(2, 7, 32), torch.randn(2, 9, 32)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 6:] = True
    kwargs = dict(d_model=32, nhead=4, dim_feedforward=48, dropout=0.0, batch_first=True, norm_first=pre_norm)
    zero = torch.zeros(1, 1, 32)

    encoder, expected = EncoderLayer(**SIZES, pre_norm=pre_norm), nn.TransformerEncoderLayer(**kwargs)
    nn.init.xavier_uniform_(encoder.self_attn.in_proj_weight)
    randomize_norm_layers(encoder)
    expected.load_state_dict(encoder.state_dict())
    ours = encoder(memory, zero, ~padding[:, None, None])
    theirs = expected(memory, src_key_padding_mask=padding)
    torch.testing.assert_close(ours[~padding], theirs[~padding], rtol=0, atol=1e-5)
    compare_gradients(encoder, expected, ours[~padding], theirs[~padding])

    decoder, expected = DecoderLayer(**SIZES, pre_norm=pre_norm), nn.TransformerDecoderLayer(**kwargs)
    for attention in (decoder.self_attn, decoder.multihead_attn):
        nn.init.xavier_uniform_(attention.in_proj_weight)
    randomize_norm_layers(decoder)
    expected.load_state_dict(decoder.state_dict())
    ours = decoder(x, zero, memory, memory, ~padding[:, None, None])
    theirs = expected(x, memory, memory_key_padding_mask=padding)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    compare_gradients(decoder, expected, ours, theirs)


@pytest.fixture
def fused_calls(monkeypatch) -> list:
    """Every call of torch's fused attention."""
    calls, fused = [], F.scaled_dot_product_attention

    def recorded(*args, **kwargs):
        calls.append(args)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', recorded)
    return calls


@pytest.mark.parametrize('dropout_p', [0.0, 0.1])
@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_attention_is_fused_but_for_deterministic_gradients_on_gpus(monkeypatch, fused_calls, device, dropout_p):
    """torch's meta device stands in for a GPU."""
    assert {'cuda'} == transformer.ANY_ORDER
    monkeypatch.setattr(transformer, 'ANY_ORDER', frozenset({'meta'}))
    for is_deterministic, needs_gradient, mode in product((False, True), (False, True), (contextlib.nullcontext, torch.no_grad)):
        torch.use_deterministic_algorithms(is_deterministic, warn_only=True)
        q, k, v = (torch.zeros(2, 4, length, 8, device=device, requires_grad=needs_gradient) for length in (5, 7, 7))
        fused_calls.clear()
        with mode():
            assert transformer.attention(q, k, v, torch.ones(2, 1, 1, 7, dtype=torch.bool, device=device), dropout_p).shape == q.shape
        is_deterministic_step = is_deterministic and needs_gradient and mode is contextlib.nullcontext
        assert len(fused_calls) == (not (is_deterministic_step if device == 'meta' else dropout_p))


@pytest.mark.parametrize('is_compiled', [False, True])
@pytest.mark.parametrize('is_masked', [False, True])
def test_attention_for_deterministic_gradients_equals_the_fused_one(monkeypatch, fused_calls, is_masked, is_compiled):
    """In values and gradients; compiled, without a graph break."""
    torch._dynamo.reset()
    inputs = [torch.randn(2, 4, length, 8, requires_grad=True) for length in (5, 7, 7)]
    mask = torch.rand(2, 1, 1, 7).argsort() < 4 if is_masked else None
    attention = torch.compile(transformer.attention, fullgraph=True, backend='eager') if is_compiled else transformer.attention
    expected = transformer.attention(*inputs, mask, 0.0)
    monkeypatch.setattr(transformer, 'ANY_ORDER', frozenset({'cpu'}))
    torch.use_deterministic_algorithms(True, warn_only=True)
    fused_calls.clear()
    got = attention(*inputs, mask, 0.0)
    assert not fused_calls
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(got)
    for ours, theirs in zip(torch.autograd.grad(got, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def compare_gradients(module, expected, ours, theirs):
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for (name, parameter), other in zip(module.named_parameters(), dict(expected.named_parameters()).values()):
        other = dict(expected.named_parameters())[name]
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_positions_enter_queries_and_keys_but_not_values():
    layer = EncoderLayer(**SIZES, pre_norm=False).eval()
    nn.init.xavier_uniform_(layer.self_attn.in_proj_weight)
    x, pos = torch.randn(1, 5, 32), torch.randn(1, 5, 32)
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    attention.load_state_dict(layer.self_attn.state_dict())
    attended, _ = attention(x + pos, x + pos, x)
    hidden = layer.norm1(x + attended)
    expected = layer.norm2(hidden + layer.feedforward(hidden))
    torch.testing.assert_close(layer(x, pos, None), expected, rtol=0, atol=1e-5)


def test_pre_norm_ends_the_encoder_in_a_norm_and_post_norm_does_not():
    for pre_norm in (False, True):
        neck = MODELS.build(
            dict(
                type='mmdet_detr_plugin.TransformerNeck',
                in_channels=8,
                embed_dims=32,
                num_heads=4,
                num_encoder_layers=1,
                num_decoder_layers=1,
                feedforward_channels=32,
                pre_norm=pre_norm,
            )
        )
        assert ('encoder.norm.weight' in neck.state_dict()) == pre_norm
        assert 'decoder.norm.weight' in neck.state_dict()


def test_every_decoder_layer_passes_the_one_shared_norm():
    neck = MODELS.build(
        dict(
            type='mmdet_detr_plugin.TransformerNeck',
            in_channels=8,
            embed_dims=32,
            num_heads=4,
            num_encoder_layers=1,
            num_decoder_layers=3,
            feedforward_channels=32,
        )
    ).eval()
    hidden_states, memory = neck(torch.randn(2, 8, 3, 4))
    assert hidden_states.shape == (3, 2, 100, 32) and memory.shape == (2, 32, 3, 4)
    torch.testing.assert_close(hidden_states.mean(-1), torch.zeros(3, 2, 100), rtol=0, atol=1e-5)  # layer norm with weight 1 and bias 0
    torch.testing.assert_close(hidden_states.std(-1, unbiased=False), torch.ones(3, 2, 100), rtol=0, atol=1e-2)


@pytest.mark.parametrize('normalize, temperature', [(True, 10000), (False, 20)])
def test_sine_encoding_equals_mmdets_with_and_without_padding(normalize, temperature):
    ours = SinePositionEncoding(16, temperature=temperature, normalize=normalize)
    theirs = SinePositionalEncoding(16, temperature=temperature, normalize=normalize)
    feats, mask = torch.zeros(2, 32, 5, 7), torch.zeros(2, 5, 7, dtype=torch.bool)
    torch.testing.assert_close(ours(feats, None).expand(2, -1, -1, -1), theirs(mask), rtol=0, atol=1e-5)
    mask[0, 4:], mask[1, :, 3:] = True, True
    torch.testing.assert_close(ours(feats, mask), theirs(mask), rtol=0, atol=1e-5)


def test_learned_encoding_is_columns_then_rows():
    encoding = LearnedPositionEncoding(4)
    encoded = encoding(torch.zeros(2, 8, 3, 5), None)
    assert encoded.shape == (1, 8, 3, 5)
    assert torch.equal(encoded[0, :, 2, 4], torch.cat((encoding.col_embed.weight[4], encoding.row_embed.weight[2])))


def test_learned_encoding_names_its_limit():
    with pytest.raises(ValueError, match='has 50 rows and 50 columns, the feature map 3 x 51'):
        LearnedPositionEncoding(4)(torch.zeros(1, 8, 3, 51), None)


@pytest.mark.parametrize('depth, conv', [(18, 'conv1'), (50, 'conv2')])
def test_dc5_dilates_all_but_the_first_block_as_torchvision(depth, conv):
    """Equal to a plain ResNet whose last stage is dilated by hand: no stride, dilation 2 in every block but the first."""
    dc5, by_hand = ResNetDC5(depth=depth, out_indices=(3,)), MODELS.build(dict(type='ResNet', depth=depth, out_indices=(3,)))
    dc5.eval()
    by_hand.eval()
    randomize_norm_layers(dc5)
    by_hand.load_state_dict(dc5.state_dict())
    getattr(by_hand.layer4[0], conv).stride = (1, 1)
    by_hand.layer4[0].downsample[0].stride = (1, 1)
    for block in list(by_hand.layer4)[1:]:
        getattr(block, conv).dilation = getattr(block, conv).padding = (2, 2)
    x = torch.randn(1, 3, 64, 96)
    output, expected = dc5(x)[0], by_hand(x)[0]
    assert output.shape[-2:] == (4, 6)
    torch.testing.assert_close(output, expected)
