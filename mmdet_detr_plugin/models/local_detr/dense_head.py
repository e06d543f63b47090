"""A dense head on the memory whose best locations become the decoder's queries.

Letters: B images, D channels, K classes, T objects (padded), N cells of all levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...boxes import aligned_giou, cxcywh_to_xyxy
from ...devices import at_least_float32, integers, to_device
from ..set_criterion import average_over_ranks
from ..targets import Targets
from .box_attention import level_of_boxes
from .masked_convs import blank, flat_padding, normalise

RADIUS = 1.5  # cells around an object's centre that learn it, along each axis
CELLS_OF_OBJECT = 4  # along a side, about; decides the level
HALF_A_CELL = 0.501  # a centre on the border between two cells is in both, however it is rounded
MAX_LOG_DISTANCE = 8.0  # in cells, before exp


class Tower(nn.Module):
    """Convolutions that all levels share, with norms of each level's own: batch statistics of fine and coarse levels differ."""

    def __init__(self, embed_dims: int, num_levels: int, num_convs: int, norm_cfg: dict) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(embed_dims, embed_dims, 3, padding=1, bias=False) for _ in range(num_convs))
        self.norms = nn.ModuleList(
            nn.ModuleList(build_norm_layer(norm_cfg, embed_dims)[1] for _ in range(num_convs)) for _ in range(num_levels)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')

    def forward(self, x: Tensor, level: int, padding_mask: Tensor | None) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        for conv, norm in zip(self.convs, self.norms[level], strict=True):
            x = blank(F.relu(normalise(norm, conv(x), padding_mask)), padding_mask)
        return x


class DenseHead(BaseModule):
    """Class scores and a box for every cell, without anchors.

    An object is learned by the 3 x 3 cells around its centre, on the one level whose cells fit its size; their target falls off with the
    distance, so that an object makes one local maximum. Fixed targets, unlike those that follow the predictions, teach from the first
    iteration on.

    Args:
        num_classes: K.
        embed_dims: D.
        num_levels: of the memory.
        num_convs: 3 x 3 convolutions before each of the two outputs.
        norm_cfg: theirs; batch norm by default.
    """

    def __init__(self, num_classes: int, embed_dims: int, num_levels: int, num_convs: int = 1, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_tower, self.box_tower = (Tower(embed_dims, num_levels, num_convs, norm_cfg or dict(type='BN')) for _ in range(2))
        self.conv_cls = nn.Conv2d(embed_dims, num_classes, 1)
        self.conv_box = nn.Conv2d(embed_dims, 4, 1)
        for conv, bias in ((self.conv_cls, bias_init_with_prob(0.01)), (self.conv_box, 0.7)):  # boxes begin at the size that a level is for
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, bias)

    def forward(self, memory: Sequence[Tensor], padding_masks: Sequence[Tensor | None]) -> tuple[list[Tensor], Tensor]:
        """What every cell claims.

        Args:
            memory: (B, D, h, w) of each level, 0 in padded cells.
            padding_masks: (B, h, w) of each level, True = padding; None where nothing is padded.

        Returns:
            Class logits (B, K, h, w) of each level, and boxes of all cells (B, N, 4), xyxy, as fractions of the memory's sides.
        """
        logits, boxes = [], []
        for number, (level, mask) in enumerate(zip(memory, padding_masks, strict=True)):
            logits.append(self.conv_cls(self.cls_tower(level, number, mask)))
            log_distances = at_least_float32(self.conv_box(self.box_tower(level, number, mask)))
            height, width = level.shape[-2:]
            sides = integers((width, height, width, height), level.device).to(log_distances.dtype)
            distances = log_distances.clamp(max=MAX_LOG_DISTANCE).exp().flatten(2).transpose(1, 2)  # (B, h * w, 4), in cells
            centres = cell_centres([(height, width)], level.device).repeat(1, 2) * sides
            boxes.append((centres + torch.cat((-distances[..., :2], distances[..., 2:]), dim=-1)) / sides)
        return logits, torch.cat(boxes, dim=1)

    def loss(
        self, logits: Sequence[Tensor], boxes: Tensor, targets: Targets, scale: Tensor, padding_masks: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """Quality focal loss (Li et al. 2020) of the scores, and GIoU of the boxes; of valid cells.

        Args:
            logits: (B, K, h, w) of each level.
            boxes: (B, N, 4), xyxy as fractions of the memory's sides.
            scale: (B, 1, 4), sides of the images as fractions of the memory's.
            padding_masks: as in ``forward``.
        """
        shapes = [tuple(level.shape[-2:]) for level in logits]
        flat = at_least_float32(torch.cat([level.flatten(2) for level in logits], dim=2).transpose(1, 2))  # (B, N, K)
        objects = targets.boxes_cxcywh_norm.to(boxes.dtype) * scale
        quality, which = assign(objects, targets.counts, shapes)  # (B, N) each
        has_objects = objects.shape[1] > 0
        labels = targets.labels.gather(1, which) if has_objects else which
        wanted = objects.gather(1, which[..., None].expand(-1, -1, 4)) if has_objects else boxes.detach()  # of every cell, to wait for none
        target = F.one_hot(labels, self.num_classes) * quality[..., None]
        focal = (target - flat.detach().sigmoid()).square()
        if (padding := flat_padding(padding_masks)) is not None:
            focal, quality = focal.masked_fill(padding[..., None], 0), quality.masked_fill(padding, 0)
        norm = average_over_ranks(quality.sum())
        loss_cls = F.binary_cross_entropy_with_logits(flat, target, focal, reduction='sum') / norm
        loss_box = (quality * (1 - aligned_giou(boxes, cxcywh_to_xyxy(wanted)))).sum() / norm
        return dict(loss_cls=loss_cls, loss_iou=2 * loss_box)


@torch.no_grad()
def assign(objects: Tensor, counts: Sequence[int], shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Which object each cell learns, and with what target.

    Args:
        objects: (B, T, 4), cxcywh as fractions of the memory's sides.
        counts: objects of each image.
        shapes: (h, w) of each level.

    Returns:
        (B, N), target in [0, 1], 0 where there is no object, falling with the distance to the object's centre; and (B, N), its index.
        The cell that holds an object's centre always learns it, unless another object's centre is nearer.
    """
    centres, device = cell_centres(shapes, objects.device), objects.device
    num_images, num_slots = objects.shape[:2]
    if num_slots == 0:
        return objects.new_zeros(num_images, len(centres)), torch.zeros(num_images, len(centres), dtype=torch.long, device=device)
    sizes = to_device(torch.tensor([(width, height) for height, width in shapes], dtype=objects.dtype), device)
    numbers = torch.tensor([height * width for height, width in shapes])
    level_of_cell = to_device(torch.arange(len(shapes)).repeat_interleave(numbers), device)  # (N,)
    offset = (centres[None, :, None] - objects[:, None, :, :2]).abs() * sizes[level_of_cell][None, :, None]  # (B, N, T, 2), in cells
    half = 0.5 * objects[:, None, :, 2:] * sizes[level_of_cell][None, :, None]
    is_near = (offset <= torch.minimum(half, torch.full_like(half, RADIUS)).clamp(min=HALF_A_CELL)).all(-1)
    is_level = level_of_boxes(objects, shapes, CELLS_OF_OBJECT)[:, None] == level_of_cell[:, None]  # (B, N, T)
    exists = torch.arange(num_slots) < torch.tensor(counts)[:, None]
    target = torch.exp(-0.5 * offset.square().sum(-1)) * (is_near & is_level & to_device(exists, device)[:, None])
    return target.max(-1)


def cell_centres(shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(N, 2), x and y of all cells' centres as fractions of the memory's sides, row by row, level after level."""
    centres = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        centres.append(torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1).flatten(0, 1))
    return torch.cat(centres)
