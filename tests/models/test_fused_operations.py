"""Fused and CPU-specific operations against torch's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_detr_plugin.models import onednn
from mmdet_detr_plugin.models.dropout import Dropout, dropout
from mmdet_detr_plugin.models.fused_conv import scaled_conv
from mmdet_detr_plugin.models.fused_linear import apply_linear, linear
from mmdet_detr_plugin.models.transformer import attention


@pytest.fixture(autouse=True, params=[True, False], ids=['onednn', 'mkl'])
def linear_by(request, monkeypatch):
    """Linear layers by either library, whatever the make of this CPU."""
    monkeypatch.setattr(onednn, 'MKL_IS_SLOW', request.param)


def test_onednn_is_in_use_here():
    """Else the tests below compare torch with torch."""
    assert onednn.is_usable(torch.zeros(1), torch.float32)
    assert not onednn.is_usable(torch.zeros(1), torch.float64)
    assert not onednn.is_usable(torch.zeros(1), torch.float16)


def test_nan_stays_nan():
    """Where weights or images are broken, the loss must show it."""
    layer, conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 1, bias=False)
    nn.init.constant_(layer.weight, torch.nan)
    nn.init.constant_(conv.weight, torch.nan)
    image = torch.randn(1, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            assert apply_linear(layer, torch.randn(4, 8), relu=True).isnan().all()
            for residual in (None, image.clone()):
                assert scaled_conv(image, conv, torch.ones(8), torch.zeros(8), residual, relu=True, reuse=True).isnan().all()


def test_wrong_sizes_and_types_get_torchs_errors():
    layer = nn.Linear(8, 8)
    with pytest.raises(RuntimeError, match='cannot be multiplied'):
        apply_linear(layer, torch.zeros(4, 7))
    with pytest.raises(RuntimeError, match='dtype'):
        apply_linear(layer.double(), torch.zeros(4, 8))


def test_replaced_and_hooked_layers_count():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, x = Doubled(8, 8), torch.randn(4, 8)
    torch.testing.assert_close(apply_linear(layer, x), layer(x))
    layer, seen = nn.Linear(8, 8), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    apply_linear(layer, x)
    assert len(seen) == 1


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('shape', [(7, 24), (3, 5, 24), (2, 3, 5, 24), (0, 24)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_linear_equals_torchs(shape, relu, dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator, dtype=dtype) for size in (shape, (40, 24), (40,)))
    weight = torch.cat((weight, weight))[20:60]  # a slice, as in packed projections
    results = []
    for function in (linear, lambda x, w, b, relu: F.relu(F.linear(x, w, b)) if relu else F.linear(x, w, b)):
        leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
        out = function(*leaves, relu)
        (out * torch.arange(40, dtype=dtype)).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_linear_takes_transposed_input_and_frozen_weights():
    x = torch.randn(24, 7).t().requires_grad_()
    layer = nn.Linear(24, 40).requires_grad_(False)
    linear(x, layer.weight, layer.bias).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(7, -1), rtol=1e-5, atol=1e-5)
    assert layer.weight.grad is None


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('with_residual', [False, True])
@pytest.mark.parametrize('geometry', [dict(padding=1), dict(stride=2), dict(padding=2, dilation=2), dict(padding=1, groups=4)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_scaled_conv_equals_torchs(geometry, with_residual, relu, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, bias=False, **geometry).to(dtype)
    scale, bias = torch.rand(12, dtype=dtype) + 0.5, torch.randn(12, dtype=dtype)
    x = torch.randn(2, 8, 9, 10, dtype=dtype).contiguous(memory_format=torch.channels_last)
    residual = torch.randn_like(conv(x)) if with_residual else None
    results = []
    for is_ours in (True, False):
        conv.weight.grad = None
        leaves = [None if value is None else value.clone().requires_grad_() for value in (x, residual)]
        if is_ours:
            out = scaled_conv(leaves[0], conv, scale, bias, leaves[1], relu)
        else:
            out = conv(leaves[0]) * scale[:, None, None] + bias[:, None, None]
            out = out if leaves[1] is None else out + leaves[1]
            out = out.relu() if relu else out
        (out * torch.linspace(0, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append([out, conv.weight.grad, *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_residual_is_written_over_only_when_allowed():
    conv, scale, bias = nn.Conv2d(8, 8, 1, bias=False), torch.ones(8), torch.zeros(8)
    x, residual = (torch.randn(1, 8, 6, 6).contiguous(memory_format=torch.channels_last) for _ in range(2))
    before = residual.clone()
    with torch.no_grad():
        expected = scaled_conv(x, conv, scale, bias, residual, relu=True)
        assert torch.equal(residual, before)
        torch.testing.assert_close(scaled_conv(x, conv, scale, bias, residual, relu=True, reuse=True), expected)
        assert not torch.equal(residual, before)
    residual = before.clone()
    scaled_conv(x, conv, scale, bias, residual, relu=True, reuse=True)  # with gradients never
    assert torch.equal(residual, before)


@pytest.mark.parametrize('p', [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_the_share_and_scales_the_rest(p):
    x = torch.ones(100_001, requires_grad=True)
    torch.manual_seed(0)
    out = dropout(x, p)
    kept = out != 0
    assert abs(kept.double().mean() - (1 - p)) < 0.005  # 3 standard deviations of 0.0016
    if kept.any():
        torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - p)), rtol=1e-4, atol=0)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())  # of ones: the same mask and scale
    torch.manual_seed(0)
    assert torch.equal(dropout(x, p), out)
    assert p in (0, 1) or not torch.equal(dropout(x, p), out)


def test_dropout_is_independent_between_neighbours():
    """Four elements share one random number: their bits must not be related."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.3) == 0).double().view(-1, 4)
    assert (dropped.mean(0) - 0.3).abs().max() < 0.006
    correlation = torch.corrcoef(dropped.t()) - torch.eye(4, dtype=torch.double)
    assert correlation.abs().max() < 0.013  # 4 standard deviations of 1 / sqrt(100000)


def test_dropout_module():
    module = Dropout(0.5)
    x = torch.randn(10)
    assert module.eval()(x) is x and (module.train()(x) != x).any()
    assert isinstance(module, nn.Dropout)
    with torch.device('meta'):  # another default device
        assert module(x).device.type == 'cpu'


@pytest.mark.parametrize('is_masked', [False, True])
def test_attention_without_dropping_anything_equals_the_fused_kernel(is_masked, monkeypatch):
    q, k, v = (torch.randn(2, 4, size, 8) for size in (5, 7, 7))
    mask = torch.rand(2, 1, 1, 7) > 0.3 if is_masked else None
    if is_masked:
        mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attention(q, k, v, mask, 1e-9), expected)  # rounds to no dropout: the path in three steps
    torch.manual_seed(0)
    mean = torch.stack([attention(q, k, v, mask, 0.1) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, expected, atol=0.06, rtol=0)


def test_float16_autocast_falls_back():
    layer = nn.Linear(8, 8)
    with torch.autocast('cpu', dtype=torch.float16):
        assert apply_linear(layer, torch.randn(4, 8)).dtype == torch.float16


def test_operations_follow_autocast():
    layer, conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 1, bias=False)
    x, image = torch.randn(4, 8), torch.randn(1, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = [linear(x, layer.weight, layer.bias, relu=True), scaled_conv(image, conv, torch.ones(8), torch.zeros(8), relu=True)]
    assert [out.dtype for out in outs] == [torch.bfloat16] * 2
    sum(out.float().sum() for out in outs).backward()
    assert {value.grad.dtype for value in (layer.weight, layer.bias, conv.weight)} == {torch.float32}
    exact = copy.deepcopy(layer)
    exact.zero_grad()
    F.relu(exact(x)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, exact.weight.grad, atol=0.1, rtol=0.05)
