"""Convolution with folded norm, sum and ReLU as one operation: fewer passes over the activations, and fewer kept for the backward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import working_dtype
from . import onednn


def scaled_conv(
    x: Tensor, conv: nn.Conv2d, scale: Tensor, bias: Tensor, residual: Tensor | None = None, relu: bool = False, reuse: bool = False
) -> Tensor:
    """``relu(conv2d(x, conv.weight * scale) + bias + residual)``.

    Args:
        x: (B, C, H, W).
        conv: its weight (C', C, k, k) gets gradients; its own bias does not count.
        scale: (C',), a constant.
        bias: (C',), a constant.
        residual: added before the ReLU.
        reuse: without gradients, the result may take ``residual``'s memory. Fresh memory of that size costs more time than some
            convolutions.
    """
    tensors = (x, conv.weight) if residual is None else (x, conv.weight, residual)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if needs_grad and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
        return _ScaledConv.apply(x, conv.weight, scale, bias, residual, conv, relu)
    return _compute(x, conv.weight, scale, bias, residual, conv, relu, reuse and not needs_grad)


class _ScaledConv(torch.autograd.Function):
    """The scaled weights are made again in the backward pass, which takes less than keeping them."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, residual: Tensor | None, conv: nn.Conv2d, relu: bool
    ) -> Tensor:
        x = x.to(working_dtype(x))
        out = _compute(x, weight, scale, bias, residual, conv, relu, reuse=False)
        ctx.save_for_backward(x, weight, scale, out if relu else None)
        ctx.conv = conv
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, out = ctx.saved_tensors
        conv, (needs_x, needs_weight, _, _, needs_residual, *_) = ctx.conv, ctx.needs_input_grad
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad,
            x,
            _scaled(weight, scale, x.dtype),
            None,
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            [0, 0],
            conv.groups,
            [needs_x, needs_weight, False],
        )
        if needs_weight:
            grad_weight = grad_weight.to(weight.dtype).mul_(scale[:, None, None, None])
        return grad_x, grad_weight, None, None, grad if needs_residual else None, None, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * scale[:, None, None, None]).to(dtype)


def _compute(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, residual: Tensor | None, conv: nn.Conv2d, relu: bool, reuse: bool
) -> Tensor:
    dtype = working_dtype(x)
    x, weight, bias = x.to(dtype), _scaled(weight, scale, dtype), bias.to(dtype)
    residual = residual if residual is None else residual.to(dtype)
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    is_fused = onednn.is_usable(x, dtype) and x.is_contiguous(memory_format=torch.channels_last)
    if is_fused and residual is not None and reuse:
        x = onednn.conv_add_(residual, x, weight, bias, geometry)
    else:
        x = onednn.conv(x, weight, bias, geometry) if is_fused else F.conv2d(x, weight, bias, geometry[1], geometry[0], *geometry[2:])
        if residual is not None:
            x += residual
    return F.relu(x, inplace=True) if relu else x
