"""Convolutions and norms that padding does not reach: valid cells get what they would get if the batch ended where their image does.

Letters: B images, C channels, h x w cells. A ``padding_mask`` is (B, h, w), True = padding; None when nothing is padded.
"""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...devices import at_least_float32


def blank(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """(B, C, h, w) with zeros in padded cells, as a convolution sees them beyond a border."""
    return x if padding_mask is None else x * (~padding_mask)[:, None].to(x.dtype)


def flat_padding(padding_masks: Sequence[Tensor | None]) -> Tensor | None:
    """(B, N), which cells of all levels one after the other are padding; None where nothing is padded."""
    if any(mask is None for mask in padding_masks):  # then it is None for all
        return None
    return torch.cat([mask.flatten(1) for mask in padding_masks], dim=1)


def convolve(module: ConvModule, x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """A convolution, its norm and activation, on (B, C, h, w) with blank padding; the result's padding is blank too."""
    if padding_mask is None:
        return module(x)
    x = normalise(module.norm, module.conv(x), padding_mask)
    return blank(module.activate(x) if module.with_activation else x, padding_mask)


def normalise(norm: nn.Module, x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """A norm of (B, C, h, w) whose statistics are those of the valid cells: batch norm in training, group norm always.

    Synchronised batch norm of several processes takes its own in training, over all cells; other norms have no statistics over cells.
    """
    if padding_mask is None:
        return norm(x)
    if isinstance(norm, nn.GroupNorm):
        return _group_norm(norm, x, padding_mask)
    # not BatchNorm2d: mmengine turns synchronised norms on one process into a _BatchNorm of its own
    if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm) and norm.training:
        return _batch_norm(norm, x, padding_mask)
    return norm(x)


def _group_norm(norm: nn.GroupNorm, x: Tensor, padding_mask: Tensor) -> Tensor:
    values, per_group = at_least_float32(blank(x, padding_mask)), x.shape[1] // norm.num_groups
    sums, squares = (part.sum((2, 3)).unflatten(1, (-1, per_group)).sum(2) for part in (values, values.square()))  # (B, G) each
    mean, variance = _moments(sums, squares, per_group * (~padding_mask).sum((1, 2))[:, None])
    mean, variance = (value.repeat_interleave(per_group, dim=1) for value in (mean, variance))
    return _scaled(values, mean, variance, norm).to(x.dtype)


def _batch_norm(norm: _BatchNorm, x: Tensor, padding_mask: Tensor) -> Tensor:
    values, count = at_least_float32(blank(x, padding_mask)), (~padding_mask).sum()
    sums, squares = (part.sum((2, 3)).sum(0) for part in (values, values.square()))  # (C,) each
    mean, variance = _moments(sums, squares, count)
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked
            for running, new in ((norm.running_mean, mean), (norm.running_var, variance * count / (count - 1).clamp(min=1))):
                running += momentum * (new - running)
    return _scaled(values, mean[None], variance[None], norm).to(x.dtype)


def _moments(sums: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance from sums of values and of their squares."""
    mean = sums / count.clamp(min=1)
    return mean, (squares / count.clamp(min=1) - mean.square()).clamp(min=0)


def _scaled(x: Tensor, mean: Tensor, variance: Tensor, norm: nn.Module) -> Tensor:
    """(B, C, h, w) normalised by moments (B or 1, C), with the norm's learned scale and shift."""
    scale = torch.rsqrt(variance + norm.eps)
    shift = -mean * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return torch.addcmul(shift[..., None, None], x, scale[..., None, None])
