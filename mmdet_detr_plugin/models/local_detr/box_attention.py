"""Attention of a query to the inside of its own box.

Letters: B images, L levels of the memory, N cells of all levels, Q queries, C channels, P points along each side of a box.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...devices import integers, is_exporting


def sample_in_boxes(memory: Tensor, shapes: Sequence[tuple[int, int]], boxes: Tensor, level: Tensor, num_points: int) -> Tensor:
    """Bilinear samples on a grid of P x P points in every box, from one level of the memory; outside the memory everything is 0.

    Boxes get no gradient.

    Args:
        memory: (B, N, C), the levels one after the other, finest first, row by row.
        shapes: (h, w) of each level.
        boxes: (B, Q, 4), centre and size as fractions of the memory's sides.
        level: (B, Q), from which level each box is sampled.
        num_points: P.

    Returns:
        (B, Q, P * P, C).
    """
    batch_size, num_cells, channels = memory.shape
    boxes = boxes.detach().float()
    heights, widths = (integers(sides, boxes.device) for sides in zip(*shapes, strict=True))  # (L,) each
    starts = torch.cumsum(heights * widths, 0) - heights * widths
    height, width, start = heights[level][..., None], widths[level][..., None], starts[level][..., None]  # (B, Q, 1) each

    grid = (torch.arange(num_points, device=boxes.device) + 0.5) / num_points - 0.5  # (P,)
    x, y = (boxes[..., axis, None] + grid * boxes[..., axis + 2, None] for axis in (0, 1))  # (B, Q, P) each
    x_cells, x_weights = _neighbours(x * width - 0.5, width)
    y_cells, y_weights = _neighbours(y * height - 0.5, height)
    # (B, Q, P, 1, 2, 1) and (B, Q, 1, P, 1, 2): for every point, two rows and two columns
    first = start + num_cells * torch.arange(batch_size, device=boxes.device)[:, None, None]
    rows = (first[..., None] + y_cells * width[..., None])[:, :, :, None, :, None]
    index = (rows + x_cells[:, :, None, :, None, :]).reshape(-1, 4)
    weight = (y_weights[:, :, :, None, :, None] * x_weights[:, :, None, :, None, :]).reshape(-1, 4)
    weight = weight.to(memory.dtype)
    if is_exporting():  # onnxruntime has no such operation
        sampled = (memory.flatten(0, 1)[index] * weight[..., None]).sum(1)
    else:  # four rows of the memory, weighted and summed, without a copy of each
        sampled = F.embedding_bag(index, memory.flatten(0, 1), mode='sum', per_sample_weights=weight)
    return sampled.view(batch_size, boxes.shape[1], num_points**2, channels)


def level_of_boxes(boxes: Tensor, shapes: Sequence[tuple[int, int]], num_cells: float) -> Tensor:
    """The level on which a box is about ``num_cells`` long, by the geometric mean of its sides: (B, Q, 4) -> (B, Q)."""
    height, width = shapes[0]
    cells = (boxes[..., 2] * width * boxes[..., 3] * height).clamp(min=1e-6).sqrt()
    return torch.log2(cells / num_cells).round().nan_to_num(0.0).clamp(0, len(shapes) - 1).long()


def _neighbours(position: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The two cells beside each position and their weights, which are 0 outside: (B, Q, P) -> (B, Q, P, 2) twice."""
    # boxes that are not finite must reach the matching, which says so, and not make an index that ends the process
    position = position.nan_to_num(0.0, 0.0, 0.0)
    low = position.floor()
    cells = torch.stack((low, low + 1), dim=-1)
    weights = torch.stack((low + 1 - position, position - low), dim=-1)
    size = size[..., None]
    inside = (cells >= 0) & (cells < size)
    return torch.minimum(cells.clamp(min=0), size - 1).long(), weights * inside
