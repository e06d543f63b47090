"""Focal and dice loss of masks (paper, section 4.4; reference: models/segmentation.py and models/detr.py, loss_masks).

The reference scales all predicted masks up to the image's size at once; here a few at a time, with their gradients computed in the same
pass, so that memory does not grow with the number of objects at that size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...devices import at_least_float32

CHUNK = 8  # masks at the image's size at a time


def mask_losses(logits: Tensor, targets: Sequence[Tensor], size: tuple[int, int], alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Losses of P masks, compared at the images' size.

    Args:
        logits: (P, h, w).
        targets: P masks (H_p, W_p), 0 or 1; what they lack to ``size`` at the right and bottom counts as 0.
        size: (H, W) of the padded batch.
        alpha: weight of mask pixels in the focal loss; 1 - alpha of the others.
        gamma: the focal loss's exponent.

    Returns:
        Focal loss, averaged over pixels, and dice loss, each (P,).
    """
    return _MaskLosses.apply(logits, targets, size, alpha, gamma)


class _MaskLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, targets: Sequence[Tensor], size: tuple[int, int], alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
        needs_grad = ctx.needs_input_grad[0]
        values, gradients = [], []
        for start in range(0, len(logits), CHUNK):
            part = at_least_float32(logits[start : start + CHUNK].detach()).requires_grad_(needs_grad)
            target = torch.stack([padded(mask, size) for mask in targets[start : start + CHUNK]]).to(part)
            with torch.enable_grad(), torch.autocast(part.device.type, enabled=False):
                losses = _losses(F.interpolate(part[:, None], size, mode='bilinear')[:, 0], target, alpha, gamma)
                if needs_grad:
                    gradients.append([torch.autograd.grad(loss.sum(), part, retain_graph=True)[0] for loss in losses])
            values.append([loss.detach() for loss in losses])
        if needs_grad:
            ctx.save_for_backward(*(torch.cat(parts) for parts in zip(*gradients, strict=True)))
            ctx.dtype = logits.dtype
        return tuple(torch.cat(parts) for parts in zip(*values, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_focal: Tensor, grad_dice: Tensor) -> tuple[Tensor | None, ...]:
        focal, dice = ctx.saved_tensors
        grad = focal * grad_focal[:, None, None] + dice * grad_dice[:, None, None]
        return grad.to(ctx.dtype), None, None, None, None


def _losses(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """(P, H, W) twice -> (P,) twice."""
    logits, target = logits.flatten(1), target.flatten(1)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    wrong = probability + target - 2 * probability * target  # 1 - the probability of the right answer
    focal = ((1 - alpha + (2 * alpha - 1) * target) * wrong**gamma * entropy).mean(1)
    dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
    return focal, dice


def padded(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return F.pad(mask, (0, size[1] - mask.shape[1], 0, size[0] - mask.shape[0]))
