"""The set-prediction loss (paper, section 3.1, equation 2 and appendix A.2; reference: models/detr.py, SetCriterion), as pure functions.

Letters: L decoder layers, B images, Q queries, K classes, P matched pairs. All layers are computed together; every function returns one
value for each layer and stays connected to the predictions when there is no object at all.
"""

import torch
from torch import Tensor

from ..boxes import aligned_giou, cxcywh_to_xyxy
from .hungarian_assigner import Pairs
from .targets import Targets


def classification_loss(cls_logits: Tensor, pairs: Pairs, targets: Targets, class_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of every query: its object's class where matched, no-object elsewhere.

    Args:
        cls_logits: (L, B, Q, K+1); the last class is no-object.
        class_weight: (K+1,).

    Returns:
        Sum of weighted terms (L,) and sum of weights (L,); their ratio is the official loss.
    """
    num_classes = cls_logits.shape[-1] - 1
    classes = torch.full(cls_logits.shape[:3], num_classes, dtype=torch.long, device=cls_logits.device)
    classes[pairs.layer, pairs.image, pairs.query] = targets.labels[pairs.image, pairs.target]
    log_probability = at_least_float32(cls_logits).log_softmax(-1).gather(-1, classes[..., None])[..., 0]  # (L, B, Q)
    weight = class_weight.to(log_probability.dtype)[classes]
    return -(weight * log_probability).sum((1, 2)), weight.sum((1, 2))


def box_losses(boxes_cxcywh_norm: Tensor, pairs: Pairs, targets: Targets) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU, summed over the matched pairs of each layer.

    Args:
        boxes_cxcywh_norm: (L, B, Q, 4).

    Returns:
        Two sums (L,); the official losses divide them by the number of objects averaged over ranks.
    """
    boxes = at_least_float32(boxes_cxcywh_norm)[pairs.layer, pairs.image, pairs.query]  # (P, 4)
    target_boxes = targets.boxes_cxcywh_norm[pairs.image, pairs.target].to(boxes.dtype)
    l1 = (boxes - target_boxes).abs().sum(-1)
    giou = 1 - aligned_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
    sums = boxes.new_zeros(len(boxes_cxcywh_norm), 2).index_add(0, pairs.layer, torch.stack((l1, giou), dim=-1))
    return sums[:, 0], sums[:, 1]


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
