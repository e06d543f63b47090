"""Ground truth of a batch as padded tensors, made once a training step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..boxes import xyxy_to_cxcywh
from ..devices import to_device

PADDED = torch.iinfo(torch.long).min  # instead of a label


@dataclass(frozen=True)
class Targets:
    """Objects of B images, padded to the largest number of objects T.

    Attributes:
        labels: (B, T), class indices; 0 where padded.
        boxes_cxcywh_norm: (B, T, 4), divided by each image's unpadded size; the middle of the image where padded, NaN where the label is
            no class.
        counts: objects of each image, on the host.
        num_classes: K; labels run from 0 to K - 1.
        given_labels: (B, T), the labels as they came; ``PADDED`` where padded.
    """

    labels: Tensor
    boxes_cxcywh_norm: Tensor
    counts: tuple[int, ...]
    num_classes: int
    given_labels: Tensor

    @property
    def num_objects(self) -> int:
        return sum(self.counts)

    def check_labels(self, img_metas: Sequence[dict]) -> None:
        """Look at every label on the host.

        Raises:
            ValueError: for a label that is no class, naming it and its image.
        """
        for labels, count, meta in zip(self.given_labels.tolist(), self.counts, img_metas, strict=True):
            if bad := [label for label in labels[:count] if not 0 <= label < self.num_classes]:
                raise ValueError(
                    f"Label {bad[0]} of {image_name(meta)} is not one of the head's {self.num_classes} classes (0 to "
                    f"{self.num_classes - 1}). Set bbox_head.num_classes and the data set's metainfo.classes to the same classes."
                )


def collate_targets(
    batch_gt_instances: Sequence[InstanceData], batch_img_metas: Sequence[dict], num_classes: int, defer_check: bool | None = None
) -> Targets:
    """Pad ``gt_instances`` of a batch.

    Args:
        batch_gt_instances: with ``labels`` (T_i,) and ``bboxes`` (T_i, 4) in xyxy pixels, a tensor or one of mmdet's box types.
        batch_img_metas: with ``img_shape`` (height, width) of the image without padding.
        num_classes: K of the head.
        defer_check: do not look at the labels now; one that is no class gets a box of NaN, so that its costs are not finite and the fault
            is found after the matching's one copy to the host. Default: only on a device, where looking would wait for it.

    Raises:
        ValueError: for a label that is no class, unless deferred.
    """
    boxes_abs = [getattr(instances.bboxes, 'tensor', instances.bboxes).reshape(-1, 4) for instances in batch_gt_instances]
    counts = tuple(map(len, boxes_abs))
    given = pad_sequence([instances.labels for instances in batch_gt_instances], batch_first=True, padding_value=PADDED)
    is_padded = given == PADDED
    shapes = [meta['img_shape'][:2] for meta in batch_img_metas]
    sizes = torch.tensor([[[width, height, width, height]] for height, width in shapes], dtype=boxes_abs[0].dtype)  # (B, 1, 4)
    boxes_cxcywh_norm = xyxy_to_cxcywh(pad_sequence(boxes_abs, batch_first=True) / to_device(sizes, given.device))
    # harmless boxes instead of (0, 0, 0, 0), so that no cost of a padded slot is 0 / 0
    boxes_cxcywh_norm = boxes_cxcywh_norm.masked_fill(is_padded[..., None], 0.5)
    targets = Targets(given.clamp(0, num_classes - 1), boxes_cxcywh_norm, counts, num_classes, given)
    if not (given.device.type != 'cpu' if defer_check is None else defer_check):
        targets.check_labels(batch_img_metas)
        return targets
    is_class = (given >= 0) & (given < num_classes) | is_padded
    return replace(targets, boxes_cxcywh_norm=boxes_cxcywh_norm.masked_fill(~is_class[..., None], torch.nan))


def image_name(img_meta: dict | None) -> str:
    """How messages call an image: by path, or by id."""
    img_meta = img_meta or {}
    return f'image {img_meta.get("img_path") or img_meta.get("img_id", "(unknown)")}'
