"""oneDNN's convolution and matrix product with what follows them, on CPUs, as torch's own compiler calls them.

These operations are faster than what torch calls by itself (its matrix products go to MKL, which does not do its best on every make of
CPU). They are not part of torch's public interface, have no gradients, and are invisible to tracers and counters: ask ``is_usable``, and
use torch's functions otherwise.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

_OPERATIONS = torch.ops.mkldnn
_IS_BUILT = all(hasattr(_OPERATIONS, name) for name in ('_convolution_pointwise', '_convolution_pointwise_', '_linear_pointwise'))
Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]


def is_usable(x: Tensor) -> bool:
    """Whether the operations take this tensor, and nobody traces, compiles, counts or watches."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        _IS_BUILT
        and x.device.type == 'cpu'
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch._C._get_mkldnn_enabled()
        and _get_current_dispatch_mode() is None
    )


def conv(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, relu: bool) -> Tensor:
    """``[relu](conv2d(x))`` of channels-last ``x``; geometry: padding, stride, dilation, groups."""
    return _OPERATIONS._convolution_pointwise(x, weight, bias, *geometry, 'relu' if relu else 'none', [], '')


def conv_add_(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, relu: bool) -> Tensor:
    """``[relu](conv2d(x) + out)``, written to ``out``."""
    return _OPERATIONS._convolution_pointwise_.binary(out, x, weight, bias, *geometry, 'add', 1.0, 'relu' if relu else None, [], None)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``[relu](linear(x))`` of (..., C) with a contiguous weight (C', C)."""
    return _OPERATIONS._linear_pointwise(x, weight, bias, 'relu' if relu else 'none', [], '')
