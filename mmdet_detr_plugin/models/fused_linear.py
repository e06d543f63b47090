"""Linear layer and ReLU as one operation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import working_dtype
from . import onednn


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """``F.linear``, with ``relu`` followed by one; on CPUs by oneDNN.

    Args:
        x: (..., C).
        weight: (C', C).
        bias: (C',).

    Returns:
        (..., C').
    """
    if onednn.is_usable(x):
        return _Linear.apply(x, weight, bias, relu)
    x = F.linear(x, weight, bias)
    return F.relu(x, inplace=True) if relu else x


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        dtype = working_dtype(x)
        x = x.to(dtype)
        out = onednn.linear(x, weight.to(dtype).contiguous(), bias.to(dtype), relu)
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        rows = grad.flatten(0, -2)  # (N, C')
        grad_x = onednn.linear(grad.contiguous(), weight.to(grad.dtype).t().contiguous()) if needs_x else None
        grad_weight = grad_bias = None
        if needs_weight:
            grad_weight = onednn.linear(rows.t().contiguous(), x.flatten(0, -2).t().contiguous()).to(weight.dtype)
        if needs_bias:
            grad_bias = rows.sum(0, dtype=torch.float32).to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None
