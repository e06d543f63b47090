"""Convolution, sum and ReLU in one pass on CPUs, by the oneDNN operations that torch's own compiler uses.

They have no gradients and are not part of torch's public interface: where they are missing, or something else than plain inference
happens, ``conv`` falls back to torch's functions, with the same result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..devices import is_autocast

_OPERATIONS = getattr(torch.ops, 'mkldnn', None)
_IS_BUILT = all(hasattr(_OPERATIONS, name) for name in ('_convolution_pointwise', '_convolution_pointwise_'))


def conv(x: Tensor, weight: Tensor, bias: Tensor, like: nn.Conv2d, residual: Tensor | None, relu: bool, reuse: bool) -> Tensor:
    """``relu(conv2d(x) + residual)``.

    Args:
        like: the convolution whose stride, padding, dilation and groups count.
        residual: added before the ReLU.
        reuse: the result may take ``residual``'s memory. Fresh memory of that size costs more time than some convolutions.
    """
    if not _can_fuse(x, weight):
        x = F.conv2d(x, weight, bias, like.stride, like.padding, like.dilation, like.groups)
        if residual is not None:
            x += residual
        return F.relu(x, inplace=True) if relu else x
    dtype = torch.get_autocast_dtype('cpu') if is_autocast(x) else x.dtype
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    geometry = like.padding, like.stride, like.dilation, like.groups
    activation = 'relu' if relu else 'none'
    if residual is None:
        return _OPERATIONS._convolution_pointwise(x, weight, bias, *geometry, activation, [], '')
    residual = residual.to(dtype) if reuse or residual.dtype != dtype else residual.clone()
    return _OPERATIONS._convolution_pointwise_.binary(residual, x, weight, bias, *geometry, 'add', 1.0, 'relu' if relu else None, [], None)


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    """In plain inference: nothing to differentiate, trace, compile, count or look at."""
    return (
        _IS_BUILT
        and x.device.type == 'cpu'
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch._C._get_mkldnn_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and _get_current_dispatch_mode() is None
    )
