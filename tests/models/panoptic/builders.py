"""Small panoptic models and batches with segments."""

import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from ...builders import detr_config, make_batch

THINGS, STUFF = 3, 2


def panoptic_config(**changes) -> dict:
    """A small PanopticDETR; changes as those of ``detr_config``, and plain values by name."""
    parts = {key: value for key, value in changes.items() if isinstance(value, dict)}
    config = detr_config(**parts)
    config['backbone']['out_indices'] = parts.get('backbone', {}).get('out_indices', (0, 1, 2, 3))
    config['bbox_head']['num_classes'] = parts.get('bbox_head', {}).get('num_classes', THINGS + STUFF)
    head = dict(type='mmdet_detr_plugin.DETRMaskHead', in_channels=(64, 128, 256), embed_dims=32, num_heads=8)
    config['mask_head'] = head | parts.get('mask_head', {})
    config |= dict(type='mmdet_detr_plugin.PanopticDETR', num_things_classes=THINGS, num_stuff_classes=STUFF)
    return config | {key: value for key, value in changes.items() if not isinstance(value, dict)}


def panoptic_local_config(stuff_head: bool = True, **head) -> dict:
    """A small PanopticLocalDETR; changes of its ``bbox_head``."""
    config = dict(
        type='mmdet_detr_plugin.PanopticLocalDETR',
        data_preprocessor=detr_config()['data_preprocessor'],
        backbone=dict(
            type='mmdet_detr_plugin.FoldedResNet', depth=18, base_channels=16, stem_channels=16, norm_cfg=dict(type='BN'), norm_eval=True
        ),
        neck=dict(
            type='mmdet_detr_plugin.PyramidEncoder', in_channels=(16, 32, 64, 128), embed_dims=32, num_heads=4, feedforward_channels=64
        ),
        bbox_head=dict(
            type='mmdet_detr_plugin.LocalDETRHead',
            num_classes=THINGS + STUFF,
            embed_dims=32,
            num_queries=12,
            num_decoder_layers=2,
            num_heads=4,
            feedforward_channels=64,
            value_dims=16,
        ),
        mask_head=dict(type='mmdet_detr_plugin.BoxMaskHead', in_channels=(32, 32, 32), embed_dims=32),
        num_things_classes=THINGS,
        num_stuff_classes=STUFF,
    )
    config['bbox_head'] |= head
    if stuff_head:
        config['stuff_head'] = dict(type='mmdet_detr_plugin.StuffHead', embed_dims=32)
    return config


def panoptic_batch(img_shapes: list[tuple[int, int]], counts: list[int], seed: int = 0, stuff: bool = True, things: int = THINGS) -> dict:
    """A batch whose things are rectangles, and whose stuff is what they leave of the upper and the lower half."""
    batch = make_batch(img_shapes, counts, things, seed)
    for (height, width), sample in zip(img_shapes, batch['batch_data_samples'], strict=True):
        boxes = sample.gt_instances.bboxes.round()
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        masks = [rectangle(box, (height, width)) for box in boxes.int().tolist()]
        set_segments(sample, boxes, sample.gt_instances.labels, masks, [things, things + 1] if stuff else [])
    return batch


def rectangle(box: list[int], shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def set_segments(sample, boxes: torch.Tensor, labels: torch.Tensor, masks: list[np.ndarray], stuff: list[int]) -> None:
    """As the pipeline and the data preprocessor leave them: padded with 0 and 255."""
    shape, padded = sample.img_shape, sample.batch_input_shape
    seg = np.full(padded, 255, dtype=np.int64)
    for index, label in enumerate(stuff):
        seg[: shape[0], : shape[1]][index * shape[0] // len(stuff) : (index + 1) * shape[0] // len(stuff)] = label
    grown = [np.pad(mask, ((0, padded[0] - shape[0]), (0, padded[1] - shape[1]))) for mask in masks]
    for label, mask in zip(labels.tolist(), grown, strict=True):
        seg[mask > 0] = label
    sample.gt_instances = InstanceData(bboxes=boxes.float(), labels=labels, masks=BitmapMasks(grown, *padded))
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(seg)[None])
