"""The paper's matching cost of many problems at once (section 3.1, equation 1; reference: models/matcher.py).

Letters: N problems (one for each decoder layer and image), Q queries, K classes, T objects (padded).
"""

import torch
from torch import Tensor


def paper_cost(
    log_probability: Tensor,
    boxes_cxcywh_norm: Tensor,
    labels: Tensor,
    target_boxes_cxcywh_norm: Tensor,
    weights: tuple[float, float, float],
) -> Tensor:
    """Class weight x -p + L1 weight x L1 - GIoU weight x (GIoU + 1); the constant changes no matching.

    Objects come before queries, because so scipy solves a problem without transposing it.

    Args:
        log_probability: (N, Q, K+1), the logits' log-softmax.
        boxes_cxcywh_norm: (N, Q, 4).
        labels: (N, T).
        target_boxes_cxcywh_norm: (N, T, 4), in the dtype of the other boxes.
        weights: of class, L1 and GIoU.

    Returns:
        (N, T, Q).
    """
    cls_weight, l1_weight, giou_weight = weights
    index = labels[:, None, :].expand(-1, boxes_cxcywh_norm.shape[1], -1)
    probability = log_probability.gather(2, index).exp_().transpose(1, 2)
    # also with weight 0: boxes that are not finite must show
    cost = torch.cdist(l1_weight * target_boxes_cxcywh_norm, l1_weight * boxes_cxcywh_norm, p=1)
    if giou_weight:
        cost.sub_(_giou_plus_one(boxes_cxcywh_norm, target_boxes_cxcywh_norm), alpha=giou_weight)
    return cost.sub_(probability, alpha=cls_weight)


def _giou_plus_one(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """IoU + union / hull, (N, T, Q)."""
    query_x, query_y, query_w, query_h = boxes[:, None].unbind(-1)  # (N, 1, Q) each
    object_x, object_y, object_w, object_h = target_boxes[:, :, None].unbind(-1)  # (N, T, 1) each
    overlap_x, extent_x, query_w, object_w = _along_axis(query_x, query_w, object_x, object_w)
    overlap_y, extent_y, query_h, object_h = _along_axis(query_y, query_h, object_y, object_h)
    intersection, hull = overlap_x.mul_(overlap_y), extent_x.mul_(extent_y)
    tiny = torch.finfo(boxes.dtype).tiny  # instead of 0 / 0 for two boxes without area
    union = (query_w * query_h).clamp_(min=tiny) + object_w * object_h
    union.sub_(intersection)
    return intersection.div_(union).add_(union.div_(hull.clamp_(min=tiny)))


def _along_axis(query: Tensor, query_size: Tensor, target: Tensor, target_size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Overlap and common extent of every pair, (N, T, Q), and both sizes as their corners have them."""
    query_low, query_high = query - 0.5 * query_size, query + 0.5 * query_size
    target_low, target_high = target - 0.5 * target_size, target + 0.5 * target_size
    overlap = torch.minimum(query_high, target_high).sub_(torch.maximum(query_low, target_low)).clamp_(min=0)
    extent = torch.maximum(query_high, target_high).sub_(torch.minimum(query_low, target_low))
    return overlap, extent, query_high - query_low, target_high - target_low
