"""DETR's matching and loss written from the paper (section 3.1, appendix A.2), one number at a time. Slow on purpose.

Inputs are nested lists of scalar tensors, or tensors indexed down to scalars, so that autograd gives the reference gradients too.
"""

import itertools

import torch
from torch import Tensor


def corners(box: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cx, cy, w, h = box
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def giou(box_a: Tensor, box_b: Tensor) -> Tensor:
    """Generalised IoU of two boxes (cx, cy, w, h)."""
    ax0, ay0, ax1, ay1 = corners(box_a)
    bx0, by0, bx1, by1 = corners(box_b)
    zero = torch.zeros_like(ax0)
    intersection = max(zero, min(ax1, bx1) - max(ax0, bx0)) * max(zero, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return intersection / union - (hull - union) / hull


def l1(box_a: Tensor, box_b: Tensor) -> Tensor:
    return sum(abs(a - b) for a, b in zip(box_a, box_b))


def pair_cost(logits: Tensor, box: Tensor, label: int, target_box: Tensor) -> float:
    """Cost of matching one query with one object: -p(class) + 5 L1 - 2 GIoU."""
    exponentials = [torch.exp(logit) for logit in logits]
    probability = exponentials[label] / sum(exponentials)
    return float(-probability + 5 * l1(box, target_box) - 2 * giou(box, target_box))


def brute_force_matching(cost: list[list[float]], num_queries: int, num_targets: int) -> tuple[float, dict[int, int]]:
    """The least total cost over all injections, and {query: target}."""
    if num_queries >= num_targets:
        options = (
            {query: target for target, query in enumerate(queries)} for queries in itertools.permutations(range(num_queries), num_targets)
        )
    else:
        options = (dict(enumerate(targets)) for targets in itertools.permutations(range(num_targets), num_queries))
    return min(((sum(cost[q][t] for q, t in pairs.items()), pairs) for pairs in options), key=lambda option: option[0])


def set_loss(
    logits: Tensor, boxes: Tensor, labels: list[list[int]], target_boxes: list[Tensor], no_object_weight: float = 0.1
) -> dict[str, Tensor]:
    """The weighted losses of one decoder layer.

    Args:
        logits: (B, Q, K+1).
        boxes: (B, Q, 4), cx cy w h, normalised.
        labels: class indices of each image's objects.
        target_boxes: (T_i, 4) of each image.
    """
    num_images, num_queries, num_logits = logits.shape
    no_object = num_logits - 1
    num_objects = max(1, sum(map(len, labels)))
    class_sum = weight_sum = l1_sum = giou_sum = 0
    for image in range(num_images):
        cost = [
            [pair_cost(logits[image, q], boxes[image, q], label, target) for label, target in zip(labels[image], target_boxes[image])]
            for q in range(num_queries)
        ]
        _, pairs = brute_force_matching(cost, num_queries, len(labels[image]))
        for query in range(num_queries):
            target_class = labels[image][pairs[query]] if query in pairs else no_object
            weight = no_object_weight if target_class == no_object else 1.0
            log_sum = torch.log(sum(torch.exp(logit) for logit in logits[image, query]))
            class_sum = class_sum + weight * (log_sum - logits[image, query, target_class])
            weight_sum += weight
            if query in pairs:
                l1_sum = l1_sum + l1(boxes[image, query], target_boxes[image][pairs[query]])
                giou_sum = giou_sum + 1 - giou(boxes[image, query], target_boxes[image][pairs[query]])
    zero = 0 * boxes.sum()
    return dict(loss_cls=class_sum / weight_sum, loss_bbox=zero + 5 * l1_sum / num_objects, loss_iou=zero + 2 * giou_sum / num_objects)
