"""Scores that are taught the IoU of their boxes (Zhang et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...boxes import aligned_iou, cxcywh_to_xyxy
from ...devices import at_least_float32
from ..hungarian_assigner import Pairs
from ..targets import Targets


def varifocal_loss(
    logits: Tensor,
    boxes_cxcywh_norm: Tensor,
    pairs: Pairs,
    targets: Targets,
    weights: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Tensor:
    """Varifocal loss (Zhang et al. 2021): a matched query's score for its object's class should be its box's IoU, all others should be 0.

    Args:
        logits: (L, B, Q, K).
        boxes_cxcywh_norm: (L, B, Q, 4).
        weights: (B, Q), how much a query counts; None = all count 1.

    Returns:
        Sums (L,).
    """
    logits = at_least_float32(logits)
    boxes = cxcywh_to_xyxy(boxes_cxcywh_norm.detach().to(logits.dtype)).flatten(0, 2).index_select(0, pairs.prediction)
    objects = cxcywh_to_xyxy(targets.boxes_cxcywh_norm.to(logits.dtype)).flatten(0, 1).index_select(0, pairs.object)
    labels = targets.labels.flatten().index_select(0, pairs.object)
    target = torch.zeros_like(logits, requires_grad=False)
    target.view(-1).index_copy_(0, pairs.prediction * logits.shape[-1] + labels, aligned_iou(boxes, objects))
    weight = torch.where(target > 0, target, alpha * logits.detach().sigmoid() ** gamma)
    if weights is not None:
        weight = weight * weights[..., None]
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction='none').sum((1, 2, 3))
