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
from ..targets import PADDED, Targets


@dataclass
class JitteredQueries:
    """Jittered copies of the objects of a batch, in groups that do not see each other.

    A group holds one near and one far copy of every object of its image: R_i groups and 2 R_i T_i queries in image i, ordered by group,
    then near and far, then object, and padded to the largest number Q. Of an image with too many objects, T_i of them are drawn.

    Attributes:
        boxes_cxcywh_norm: (B, Q, 4).
        labels: (B, Q), classes of the objects, some replaced at random.
        group: (B, Q), the number of each query's group in its image.
        is_used: (B, Q), False where there is no query.
        weights: (B, Q), how much a query counts in the loss: 1 / R_i, so that every object counts once, and more where some objects stand
            for all; 0 where there is no query or a far copy lies on an object by chance.
        near_pairs: (2, P), on the host: every near copy as an index into (B, Q), and its object as one into (B, T).
        targets: the objects.
    """

    boxes_cxcywh_norm: Tensor
    labels: Tensor
    group: Tensor
    is_used: Tensor
    weights: Tensor
    near_pairs: np.ndarray
    targets: Targets

    def attend_mask(self, num_selected: int, is_selected_used: Tensor | None = None) -> Tensor:
        """(B, 1, S + Q, S + Q), True = may be attended to: S selected queries see each other, a group's queries too, nobody else.

        Args:
            is_selected_used: (B, S), False where there is no selected query; None = all are there.
        """
        num_images = len(self.group)
        group = torch.cat((self.group.new_full((num_images, num_selected), -1), self.group), dim=1)
        selected = self.is_used.new_ones(num_images, num_selected) if is_selected_used is None else is_selected_used
        return group_mask(group, torch.cat((selected, self.is_used), dim=1))

    def pairs(self, num_layers: int) -> Pairs:
        """Every near copy with its object, for all layers."""
        num_images, num_queries = self.group.shape
        layer = np.arange(num_layers)[:, None]
        prediction = layer * num_images * num_queries + self.near_pairs[0]
        index = np.stack((prediction, np.broadcast_to(self.near_pairs[1], prediction.shape))).reshape(2, -1)
        return Pairs(*to_device(torch.from_numpy(index), self.group.device), num_images, num_queries, self.targets.labels.shape[1])


@MODELS.register_module()
class JitteredBoxes:
    """Makes ``JitteredQueries``. How many are made for an image and what is drawn depends on the run's seed, the iteration and the image
    alone: not on the other images of the batch, nor on the process that the image is in.

    Args:
        copies: R, near and far copies of every object; fewer where an image would have more than ``max_queries`` jittered queries, and of
            some of its objects, drawn at random, where one copy of each would be too many.
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
        drawn = [self._draw(count, meta) for count, meta in zip(targets.counts, img_metas, strict=True)]
        num_queries = max(len(noise) for noise, _ in drawn)
        noise, index = np.zeros((num_images, num_queries, 5), dtype=np.float32), np.zeros((num_images, num_queries, 4), dtype=np.int64)
        for image, (image_noise, image_index) in enumerate(drawn):
            noise[image, : len(image_noise)], index[image, : len(image_index)] = image_noise, image_index
        image, query = np.nonzero((noise[..., 4] > 0) & (index[..., 1] == 0))
        near_pairs = np.stack((image * num_queries + query, image * num_slots + index[image, query, 2]))

        noise, index = (to_device(torch.from_numpy(x), targets.labels.device) for x in (noise, index))
        weights, (group, is_far, slot, new_labels) = noise[..., 4], index.unbind(-1)
        all_objects = targets.boxes_cxcywh_norm.float()
        objects = all_objects.gather(1, slot[..., None].expand(-1, -1, 4))  # (B, Q, 4)
        boxes = torch.cat((objects[..., :2] + noise[..., :2] * objects[..., 2:], objects[..., 2:] * noise[..., 2:4].exp()), dim=-1)
        corners = cxcywh_to_xyxy(boxes).clamp(0, 1)
        overlap = aligned_iou(corners[:, :, None], cxcywh_to_xyxy(all_objects)[:, None])  # (B, Q, T)
        is_on_object = ((overlap > self.max_overlap) & (targets.given_labels != PADDED)[:, None]).any(-1)
        labels = torch.where(new_labels >= 0, new_labels, targets.labels.gather(1, slot))
        counted = weights.masked_fill((is_far == 1) & is_on_object, 0)
        return JitteredQueries(boxes, labels, group, weights > 0, counted, near_pairs, targets)

    def _draw(self, count: int, meta: dict) -> tuple[np.ndarray, np.ndarray]:
        """An image's n queries. (n, 5): shifts in units of the object's size, logarithms of the change of its sides, and the weight.
        (n, 4): group, whether it is a far copy, object, and new label, -1 where the object's stays.
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
        labels = np.where(generator.random(labels.shape) < self.label_noise, labels, -1)
        copies, most = max(1, min(self.copies, self.max_queries // max(1, 2 * count))), max(1, self.max_queries // 2)
        index = np.stack((*np.mgrid[:copies, :2, :count], labels[:copies]), axis=-1)
        noise = np.pad(uniform[:copies], ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1 / copies)
        if count > most:
            chosen = np.sort(generator.permutation(count)[:most])
            index, noise = index[:, :, chosen], noise[:, :, chosen]
            noise[..., 4] *= count / most
        return noise.reshape(-1, 5), index.reshape(-1, 4)
