"""Box conversions and generalised IoU (Rezatofighi et al. 2019), on tensors of any leading shape.

Names carry the format: ``cxcywh`` or ``xyxy``, ``norm`` (divided by the image's width and height) or ``abs`` (pixels). GIoU is the same
for both, because it does not change when an axis is scaled.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> (..., 4) corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - 0.5 * size, centre + 0.5 * size), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners -> (..., 4) centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat((0.5 * (low + high), high - low), dim=-1)


def aligned_giou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """GIoU of boxes pair by pair: two broadcastable (..., 4) tensors of corners -> (...), in [-1, 1].

    Two boxes without area give a defined value (IoU 0) instead of 0 / 0; otherwise no epsilon enters.
    """
    intersection, union = _intersection_and_union(boxes_a, boxes_b)
    ax0, ay0, ax1, ay1 = boxes_a.unbind(-1)
    bx0, by0, bx1, by1 = boxes_b.unbind(-1)
    hull_w = torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)
    hull_h = torch.maximum(ay1, by1) - torch.minimum(ay0, by0)
    hull = (hull_w * hull_h).clamp(min=torch.finfo(intersection.dtype).tiny)
    return intersection / union - (hull - union) / hull


def aligned_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """IoU of boxes pair by pair: two broadcastable (..., 4) tensors of corners -> (...), in [0, 1]; 0 for two boxes without area."""
    intersection, union = _intersection_and_union(boxes_a, boxes_b)
    return intersection / union


def _intersection_and_union(boxes_a: Tensor, boxes_b: Tensor) -> tuple[Tensor, Tensor]:
    ax0, ay0, ax1, ay1 = boxes_a.unbind(-1)
    bx0, by0, bx1, by1 = boxes_b.unbind(-1)
    inter_w = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    inter_h = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    intersection = inter_w * inter_h
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    return intersection, union.clamp(min=torch.finfo(union.dtype).tiny)
