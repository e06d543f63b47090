"""From the queries' masks to segments and instances (reference: models/segmentation.py, PostProcessPanoptic and PostProcessSegm).

Deliberate difference from the reference: padding is cut off before anything is scaled to the image, so that padded batches give what
single images give.
"""

import torch
import torch.nn.functional as F
from mmdet.evaluation.functional import INSTANCE_OFFSET
from torch import Tensor

SMALLEST = 5  # pixels of a segment; the reference drops those of 4 and fewer
CHUNK = 8  # masks at the batch's size at a time


def at_batch_size(logits: Tensor, batch_shape: tuple[int, int], img_shape: tuple[int, int]) -> Tensor:
    """(P, h, w) -> (P, H, W) of the image without padding."""
    if not len(logits):
        return logits.new_zeros(0, *img_shape)
    parts = [
        F.interpolate(part[:, None].float(), batch_shape, mode='bilinear')[:, 0, : img_shape[0], : img_shape[1]]
        for part in logits.split(CHUNK)
    ]
    return torch.cat(parts)


def instance_masks(logits: Tensor, batch_shape: tuple[int, int], img_shape: tuple[int, int], out_shape: tuple[int, int]) -> Tensor:
    """(P, h, w) -> masks (P, *out_shape) of bool: probabilities above 0.5 at the network's size, scaled to the nearest pixel."""
    masks = [at_batch_size(part, batch_shape, img_shape) > 0 for part in logits.split(CHUNK)]
    masks = [F.interpolate(part[:, None].to(torch.uint8), out_shape, mode='nearest')[:, 0].bool() for part in masks if len(part)]
    return torch.cat(masks) if masks else logits.new_zeros(0, *out_shape, dtype=torch.bool)


def panoptic_map(logits: Tensor, labels: Tensor, num_things: int, num_classes: int, out_shape: tuple[int, int]) -> Tensor:
    """Segments that do not overlap, from the masks of the queries that are sure of an object.

    Every pixel goes to the query of the highest logit. Queries of the same stuff class become one; segments of at most 4 pixels are
    dropped, and their pixels given to the others.

    Args:
        logits: (P, h, w) at the network's size, without padding.
        labels: (P,).
        out_shape: (H, W) of the result, scaled to the nearest pixel.

    Returns:
        (H, W) of int32 as mmdet has it: label + ``INSTANCE_OFFSET`` x number of the thing, from 1 on; ``num_classes`` where there is
        nothing.
    """
    is_first_pass = True
    while len(logits):
        owner = logits.argmax(0)  # (h, w)
        if is_first_pass:
            owner = _first_of_same_stuff(labels, num_things)[owner]
        # by the centres of pixels, as Pillow does in the reference; 'nearest' would move the map by up to half a pixel
        owner = F.interpolate(owner[None, None].float(), out_shape, mode='nearest-exact')[0, 0].long()
        is_large = torch.bincount(owner.flatten(), minlength=len(labels)) >= SMALLEST
        if is_large.all():
            break
        logits, labels, is_first_pass = logits[is_large], labels[is_large], False
    if not len(logits):
        return torch.full(out_shape, num_classes, dtype=torch.int32, device=labels.device)
    is_thing = labels < num_things
    return (labels + INSTANCE_OFFSET * is_thing * is_thing.cumsum(0))[owner].to(torch.int32)


def _first_of_same_stuff(labels: Tensor, num_things: int) -> Tensor:
    """(P,), for each query the first one of its stuff class; things stay themselves."""
    same = (labels[:, None] == labels) & (labels >= num_things)
    same |= torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same.float().argmax(1)
