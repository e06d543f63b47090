"""Convolutions and norms that padding does not reach: valid cells get what they would get if the batch ended where their image does.

Letters: B images, C channels, h x w cells. A ``padding_mask`` is (B, h, w), True = padding; None when nothing is padded.
"""

from collections.abc import Callable, Sequence

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
    per_group = x.shape[1] // norm.num_groups

    def average(values: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C), the same for all channels of a group
        sums = values.sum((2, 3)).unflatten(1, (-1, per_group)).sum(2)  # (B, G)
        return (sums / (per_group * (~padding_mask).sum((1, 2))[:, None].clamp(min=1))).repeat_interleave(per_group, dim=1)

    centred, _, variance = _moments(x, padding_mask, average)
    return _scaled(centred, variance, norm).to(x.dtype)


def _batch_norm(norm: _BatchNorm, x: Tensor, padding_mask: Tensor) -> Tensor:
    count = (~padding_mask).sum()

    def average(values: Tensor) -> Tensor:  # (B, C, h, w) -> (1, C)
        return values.sum((0, 2, 3))[None] / count.clamp(min=1)

    centred, mean, variance = _moments(x, padding_mask, average)
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked
            momentum = momentum * (count > 1)  # one cell has no variance: nothing to learn
            for running, new in ((norm.running_mean, mean[0]), (norm.running_var, variance[0] * count / (count - 1).clamp(min=1))):
                running += momentum * (new - running)
    return _scaled(centred, variance, norm).to(x.dtype)


def _moments(x: Tensor, padding_mask: Tensor, average: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, h, w) less its mean, with blank padding; the mean (B or 1, C); and the variance, of the differences: it would drown in the
    rounding of squares where the mean is large.
    """
    values = at_least_float32(blank(x, padding_mask))
    mean = average(values)
    centred = blank(values - mean[..., None, None], padding_mask)
    return centred, mean, average(centred.square())


def _scaled(centred: Tensor, variance: Tensor, norm: nn.Module) -> Tensor:
    """(B, C, h, w) divided by standard deviations (B or 1, C), with the norm's learned scale and shift."""
    scale = torch.rsqrt(variance + norm.eps)[..., None, None]
    if norm.weight is None:
        return centred * scale
    return torch.addcmul(norm.bias[:, None, None], centred, scale * norm.weight[:, None, None])
