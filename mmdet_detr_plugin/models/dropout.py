"""Dropout that does not dominate training on CPUs.

torch draws one random number in double precision for every element there, on one thread, and keeps a mask of four bytes each. Here an
element takes 16 random bits and one byte.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 2**16  # probabilities are multiples of 1 / STEPS


class Dropout(nn.Dropout):
    """As ``nn.Dropout``; on CPUs with another stream of random numbers, drawn from torch's generator too."""

    def forward(self, x: Tensor) -> Tensor:
        """Set a share of about ``p`` to zero and scale the others by 1 / (1 - p), in training only."""
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """``F.dropout`` in training; on CPUs ``p`` is rounded to a multiple of 1 / 65536."""
    dropped = round(p * STEPS)
    if dropped == 0:
        return x
    if dropped == STEPS or not uses_own_dropout(x):
        return F.dropout(x, p)
    return _CPUDropout.apply(x, dropped)


def uses_own_dropout(x: Tensor) -> bool:
    """On CPUs, unless ``torch.compile`` is about to write a kernel of its own."""
    return x.device.type == 'cpu' and not torch.compiler.is_compiling()


class _CPUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, dropped: int) -> Tensor:
        keep = _random_mask(x, dropped)
        ctx.save_for_backward(keep)
        ctx.scale = STEPS / (STEPS - dropped)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grad * keep).mul_(ctx.scale), None


def _random_mask(x: Tensor, dropped: int) -> Tensor:
    """0 with probability ``dropped`` / STEPS, else 1, in the shape of ``x``; bytes, which multiply faster than booleans."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)  # all 64 bits
    return (words.view(torch.int16)[: x.numel()] >= dropped - STEPS // 2).view(torch.uint8).view(x.shape)
