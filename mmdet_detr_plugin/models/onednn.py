"""oneDNN's convolution and matrix product on CPUs, as torch's own compiler calls them.

These operations are faster than what torch calls by itself: its matrix products go to MKL, which does not do its best on CPUs of other
makes than Intel's. They are not part of torch's public interface, have no derivatives of any order, and are invisible to some tracers and
counters: ask ``is_usable``, and use torch's functions otherwise. Their fused ReLU is not used, because it turns NaN into 0.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

_OPERATIONS = torch.ops.mkldnn
_NAMES = ('_convolution_pointwise', '_convolution_pointwise_', '_linear_pointwise', '_is_mkldnn_bf16_supported')
_IS_BUILT = torch.backends.mkldnn.is_available() and all(hasattr(_OPERATIONS, name) for name in _NAMES)
HAS_BF16 = _IS_BUILT and _OPERATIONS._is_mkldnn_bf16_supported()  # arithmetic of this CPU
_CPU = Path('/proc/cpuinfo')
MKL_IS_SLOW = not (_CPU.exists() and 'GenuineIntel' in _CPU.read_text())  # there 3 % faster in whole steps, elsewhere half as fast
_DTYPES = (torch.float32, torch.bfloat16) if HAS_BF16 else (torch.float32,)
Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]


def is_usable(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the operations take this tensor in this type, and nobody traces, compiles, counts or watches."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        _IS_BUILT
        and x.device.type == 'cpu'
        and x.numel() > 0
        and dtype in _DTYPES
        and torch._C._get_mkldnn_enabled()
        and _get_current_dispatch_mode() is None
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether only the layer's parameters matter: nobody has hooked into its forward pass."""
    return not layer._forward_hooks and not layer._forward_pre_hooks


def conv(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """``conv2d(x)`` of channels-last ``x``; geometry: padding, stride, dilation, groups."""
    return _OPERATIONS._convolution_pointwise(x, weight, bias, *geometry, 'none', [], '')


def conv_add_(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """``conv2d(x) + out``, written to ``out``."""
    return _OPERATIONS._convolution_pointwise_.binary(out, x, weight, bias, *geometry, 'add', 1.0, None, [], None)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``linear(x)`` of (..., C) with a contiguous weight (C', C)."""
    return _OPERATIONS._linear_pointwise(x, weight, bias, 'none', [], '')
