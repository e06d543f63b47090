"""Ground truth of panoptic segmentation as objects: things as they are, and one object for each stuff class of an image."""

import copy

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor

from ..targets import image_name


def with_stuff_objects(samples: SampleList, num_things: int, num_classes: int) -> SampleList:
    """The samples, whose ``gt_instances`` hold things and stuff, with masks as tensors.

    Args:
        samples: with ``gt_instances`` (``bboxes``, ``labels`` and ``masks`` of things) and, where there are stuff classes, ``gt_sem_seg``
            (1, H, W): labels from ``num_things`` to ``num_classes - 1`` are stuff, all others are not looked at.

    Returns:
        Copies, with ``masks`` (T, H, W) of bool. Boxes of stuff are those of its pixels as they are after augmentation.

    Raises:
        ValueError: when masks or the map of stuff are missing.
    """
    return [_with_stuff(sample, num_things, num_classes) for sample in samples]


def _with_stuff(sample: DetDataSample, num_things: int, num_classes: int) -> DetDataSample:
    things = sample.gt_instances
    boxes = getattr(things.bboxes, 'tensor', things.bboxes).reshape(-1, 4)
    masks = _masks(things, boxes.device, sample)
    labels = things.labels
    if num_classes > num_things:
        stuff_labels, stuff_masks = _stuff(sample, num_things, num_classes)
        labels = torch.cat((labels, stuff_labels.to(labels)))
        boxes = torch.cat((boxes, mask2bbox(stuff_masks).to(boxes))) if len(stuff_masks) else boxes
        masks = torch.cat((_fitting(masks, stuff_masks), stuff_masks))
    copied = copy.copy(sample)
    copied.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=masks)
    return copied


def _masks(things: InstanceData, device: torch.device, sample: DetDataSample) -> Tensor:
    masks = things.get('masks')
    if masks is None:
        raise ValueError(
            f'{image_name(sample.metainfo)} has no masks; load them with mmdet_detr_plugin.LoadPanopticAnnotations, or with '
            'LoadAnnotations(with_mask=True) for instances alone'
        )
    if isinstance(masks, Tensor):
        return masks.to(device, torch.bool)
    return torch.from_numpy(masks.to_ndarray().astype(bool)).to(device)


def _stuff(sample: DetDataSample, num_things: int, num_classes: int) -> tuple[Tensor, Tensor]:
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            f'{image_name(sample.metainfo)} has no map of its stuff, and the model has {num_classes - num_things} stuff classes; load it '
            'with mmdet_detr_plugin.LoadPanopticAnnotations, or set num_stuff_classes=0 for instances alone'
        )
    seg = sample.gt_sem_seg.sem_seg[0].long()
    labels = torch.unique(seg)
    labels = labels[(labels >= num_things) & (labels < num_classes)]
    return labels, seg == labels[:, None, None]


def _fitting(masks: Tensor, like: Tensor) -> Tensor:
    """Masks of things, which an image may lack, in the size of those of stuff."""
    return masks if len(masks) else masks.new_zeros(0, *like.shape[-2:])
