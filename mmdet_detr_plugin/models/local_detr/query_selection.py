"""Choosing object queries among the locations of a dense head."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -2.0  # its rank; those of cells lie in [-1, 1]


def select_locations(scores: Sequence[Tensor], padding_masks: Sequence[Tensor | None], number: int) -> tuple[Tensor, Tensor | None]:
    """The best locations of every image: first those that are local maxima of their level, so that an object is taken about once; then, to
    make up the number, the worst of the others.

    Args:
        scores: (B, 1, h, w) of each level, in [0, 1].
        padding_masks: (B, h, w) of each level, True = padding; None where nothing is padded. Padding is taken last, where an image has
            fewer locations than others of its batch.
        number: how many; fewer where there are fewer locations.

    Returns:
        (B, number), indices into the locations of all levels one after the other; and (B, number), which of them are no padding, None
        where nothing is padded.
    """
    ranks = []
    for score, padding_mask in zip(scores, padding_masks, strict=True):
        if padding_mask is not None:
            score = score.masked_fill(padding_mask[:, None], PADDING)  # before maxima are looked for: padding is nobody's better neighbour
        # what lies beside a maximum would only find the same object again
        is_maximum = F.max_pool2d(score, 3, stride=1, padding=1) == score
        rank = torch.where(is_maximum, score, -score.abs())
        ranks.append(rank.flatten(1))
    ranks = torch.cat(ranks, dim=1)
    best, indices = ranks.topk(min(number, ranks.shape[1]), dim=1)
    return indices, None if all(mask is None for mask in padding_masks) else best > PADDING
