"""Extra queries for training: objects' boxes, moved and scaled at random, which the decoder learns to bring back.

They see and share everything that selected queries do, need no parameters, and take part in losses only. (Denoising queries, Li et al.
2022, without their label embedding: what is in a box is sampled from the memory.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from mmengine.logging import MessageHub
from torch import Tensor

from ...boxes import aligned_iou, cxcywh_to_xyxy
from ...devices import to_device
from ...registry import MODELS
from ..hungarian_assigner import Pairs
from ..queries import group_mask
from ..targets import Targets


@dataclass
class JitteredQueries:
    """Jittered copies of the objects of a batch, in groups that do not see each other.

    A group holds one near and one far copy of every object: R groups, T objects (padded), Q = 2 R T queries, ordered by group, then near
    and far, then object.

    Attributes:
        boxes_cxcywh_norm: (B, Q, 4).
        labels: (B, Q), classes of the objects, some replaced at random; 0 where there is no object.
        is_used: (B, Q), False where there is no object.
        counts: (B, Q), 1 where the query enters the loss, 0 where there is no object or a far copy lies on an object by chance.
        copies: R.
        targets: the objects.
    """

    boxes_cxcywh_norm: Tensor
    labels: Tensor
    is_used: Tensor
    counts: Tensor
    copies: int
    targets: Targets

    @property
    def group(self) -> Tensor:
        """(Q,), the number of each query's group."""
        return torch.arange(self.copies, device=self.is_used.device).repeat_interleave(self.is_used.shape[1] // self.copies)

    def attend_mask(self, num_selected: int) -> Tensor:
        """(B, 1, S + Q, S + Q), True = may be attended to: S selected queries see each other, a group's queries too, nobody else."""
        group = torch.cat((self.group.new_full((num_selected,), -1), self.group))
        return group_mask(group, torch.cat((self.is_used.new_ones(len(self.is_used), num_selected), self.is_used), dim=1))

    def pairs(self, num_layers: int) -> Pairs:
        """Every near copy with its object, for all layers."""
        num_images, num_slots = self.targets.labels.shape
        num_queries = self.boxes_cxcywh_norm.shape[1]
        slots = [(image, slot) for image, count in enumerate(self.targets.counts) for slot in range(count)]
        image, slot = np.array(slots, dtype=np.int64).reshape(-1, 2).T
        layer, group = (index[..., None] for index in np.mgrid[:num_layers, : self.copies])
        prediction = (layer * num_images + image) * num_queries + group * 2 * num_slots + slot
        index = np.stack((prediction, np.broadcast_to(image * num_slots + slot, prediction.shape))).reshape(2, -1)
        return Pairs(*to_device(torch.from_numpy(index), self.is_used.device), num_images, num_queries, num_slots)


@MODELS.register_module()
class JitteredBoxes:
    """Makes ``JitteredQueries``. What is drawn for an image depends on the run's seed, the iteration and the image alone.

    Args:
        copies: R, near and far copies of every object; fewer where a batch would have more than ``max_queries`` jittered queries an image.
        near: largest shift of a near copy as a share of the object's size, and largest change of the logarithm of its sides.
        far: smallest and largest shift of a far copy; along each axis.
        max_overlap: far copies with more IoU than this with any object do not count.
        label_noise: probability that a copy gets a label drawn from all ``num_classes``.
    """

    def __init__(
        self,
        copies: int = 4,
        near: tuple[float, float] = (0.3, 0.4),
        far: tuple[float, float] = (0.5, 1.0),
        max_overlap: float = 0.4,
        label_noise: float = 0.0,
        max_queries: int = 300,
        num_classes: int | None = None,
    ) -> None:
        if label_noise and not num_classes:
            raise ValueError(f'label_noise={label_noise} needs num_classes to draw from, got {num_classes}')
        self.copies, self.near, self.far, self.max_overlap = copies, near, far, max_overlap
        self.label_noise, self.num_classes, self.max_queries = label_noise, num_classes, max_queries

    @torch.no_grad()
    def __call__(self, targets: Targets, img_metas: Sequence[dict]) -> JitteredQueries:
        """The jittered queries of a batch."""
        num_images, num_slots = targets.labels.shape
        copies = max(1, min(self.copies, self.max_queries // max(1, 2 * num_slots)))
        noise = np.zeros((num_images, copies, 2, num_slots, 4), dtype=np.float32)
        new_labels = np.full((num_images, copies, 2, num_slots), -1)
        exists = np.zeros((num_images, num_slots), dtype=bool)
        for image, (count, meta) in enumerate(zip(targets.counts, img_metas, strict=True)):
            drawn, labels = self._draw(count, meta)
            noise[image, :, :, :count], new_labels[image, :, :, :count] = drawn[:copies], labels[:copies]
            exists[image, :count] = True
        device = targets.labels.device
        noise, exists, new_labels = (to_device(torch.from_numpy(x), device) for x in (noise, exists, new_labels))
        objects = targets.boxes_cxcywh_norm.float()[:, None, None]  # (B, 1, 1, T, 4)
        boxes = torch.cat((objects[..., :2] + noise[..., :2] * objects[..., 2:], objects[..., 2:] * noise[..., 2:].exp()), dim=-1)
        corners = cxcywh_to_xyxy(boxes).clamp(0, 1)
        overlap = aligned_iou(corners[..., None, :], cxcywh_to_xyxy(objects)[..., None, :, :])  # (B, R, 2, T, T)
        counts = exists[:, None, None].repeat(1, copies, 2, 1)
        is_on_object = ((overlap > self.max_overlap) & exists[:, None, None, None]).any(-1)
        counts[:, :, 1] &= ~is_on_object[:, :, 1]
        is_used = exists[:, None, None].expand_as(counts).flatten(1)
        labels = torch.where(new_labels >= 0, new_labels, targets.labels[:, None, None]).flatten(1)
        return JitteredQueries(boxes.flatten(1, 3), labels, is_used, counts.flatten(1).float(), copies, targets)

    def _draw(self, count: int, meta: dict) -> tuple[np.ndarray, np.ndarray]:
        """(R, 2, count, 4): near and far shifts in units of the object's size, and logarithms of the change of its sides; (R, 2, count):
        new labels, -1 where the object's stays.
        """
        hub = MessageHub.get_current_instance()
        iteration = hub.get_info('iter')
        if iteration is None:  # no runner: torch's generator decides
            iteration = int(torch.randint(2**31, ()))
        seed = [hub.get_info('seed') or 0, iteration, crc32(str(meta.get('img_id')).encode())]
        generator = np.random.default_rng(seed)
        uniform = generator.uniform(-1, 1, (self.copies, 2, count, 4)).astype(np.float32)
        low, high = self.far
        uniform[:, 0, :, :2] *= self.near[0]
        uniform[:, 1, :, :2] = np.sign(uniform[:, 1, :, :2]) * (low + np.abs(uniform[:, 1, :, :2]) * (high - low))
        uniform[..., 2:] *= self.near[1]
        labels = generator.integers(self.num_classes or 1, size=(self.copies, 2, count))
        return uniform, np.where(generator.random(labels.shape) < self.label_noise, labels, -1)
