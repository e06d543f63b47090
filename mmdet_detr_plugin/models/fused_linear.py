"""Linear layer and ReLU as one operation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import working_dtype
from . import onednn


def apply_linear(layer: nn.Linear, x: Tensor, relu: bool = False) -> Tensor:
    """``layer(x)``, as ``linear`` computes it unless somebody has replaced the layer or hooked into it."""
    if type(layer) is nn.Linear and layer.bias is not None and onednn.is_plain(layer):
        return linear(x, layer.weight, layer.bias, relu)
    x = layer(x)
    return F.relu(x) if relu else x


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """``F.linear``, with ``relu`` followed by one; on CPUs by oneDNN, unless torch's MKL is faster.

    Args:
        x: (..., C).
        weight: (C', C).
        bias: (C',).

    Returns:
        (..., C').
    """
    dtype = working_dtype(x)
    fits = x.shape[-1:] == weight.shape[1:] and bias.shape == weight.shape[:1] and (dtype != x.dtype or x.dtype == weight.dtype)
    if onednn.MKL_IS_SLOW and fits and onednn.is_usable(x, dtype):
        return _Linear.apply(x, weight, bias, relu)
    x = F.linear(x, weight, bias)
    return F.relu(x, inplace=True) if relu else x


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        dtype = working_dtype(x)
        x = x.to(dtype)
        out = onednn.linear(x, weight.to(dtype).contiguous(), bias.to(dtype))
        if relu:
            out.relu_()
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        # as a 1x1 convolution of channels-last pixels, which oneDNN differentiates without transposing anything
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _as_pixels(grad),
            _as_pixels(x),
            weight.to(grad.dtype)[:, :, None, None],
            [len(weight)],
            stride=[1, 1],
            padding=[0, 0],
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=[needs_x, needs_weight, needs_bias],
        )
        grad_x = grad_x[0, :, :, 0].t().reshape(x.shape) if needs_x else None
        grad_weight = grad_weight[:, :, 0, 0].to(weight.dtype) if needs_weight else None
        return grad_x, grad_weight, grad_bias.to(weight.dtype) if needs_bias else None, None


def _as_pixels(x: Tensor) -> Tensor:
    """(..., C) -> (1, C, N, 1), channels last in its strides too."""
    return x.reshape(1, -1, 1, x.shape[-1]).contiguous().permute(0, 3, 1, 2)
