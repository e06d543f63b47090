"""Ground truth of a batch as padded tensors, made once a training step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..boxes import xyxy_to_cxcywh


@dataclass(frozen=True)
class Targets:
    """Objects of B images, padded to the largest number of objects T.

    Attributes:
        labels: (B, T), class indices; 0 where padded.
        boxes_cxcywh_norm: (B, T, 4), divided by each image's unpadded size; the whole image where padded.
        counts: objects of each image, on the host.
    """

    labels: Tensor
    boxes_cxcywh_norm: Tensor
    counts: tuple[int, ...]

    @property
    def num_objects(self) -> int:
        return sum(self.counts)


def collate_targets(batch_gt_instances: Sequence[InstanceData], batch_img_metas: Sequence[dict]) -> Targets:
    """Pad ``gt_instances`` of a batch.

    Args:
        batch_gt_instances: with ``labels`` (T_i,) and ``bboxes`` (T_i, 4) in xyxy pixels, a tensor or one of mmdet's box types.
        batch_img_metas: with ``img_shape`` (height, width) of the image without padding.
    """
    boxes_norm = []
    for instances, meta in zip(batch_gt_instances, batch_img_metas, strict=True):
        boxes_abs = getattr(instances.bboxes, 'tensor', instances.bboxes)
        height, width = meta['img_shape'][:2]
        boxes_norm.append(boxes_abs.reshape(-1, 4) / boxes_abs.new_tensor([width, height, width, height]))
    labels = pad_sequence([instances.labels for instances in batch_gt_instances], batch_first=True)
    boxes_xyxy_norm = pad_sequence(boxes_norm, batch_first=True)
    counts = tuple(len(boxes) for boxes in boxes_norm)
    if len(set(counts)) > 1:  # harmless boxes instead of (0, 0, 0, 0), so that no cost of a padded slot is 0 / 0
        slots = torch.arange(labels.shape[1], device=labels.device)
        padded = slots[None] >= torch.tensor(counts, device=labels.device)[:, None]  # (B, T)
        boxes_xyxy_norm = torch.where(padded[..., None], boxes_xyxy_norm.new_tensor([0.0, 0.0, 1.0, 1.0]), boxes_xyxy_norm)
    return Targets(labels, xyxy_to_cxcywh(boxes_xyxy_norm), counts)
