"""Objects that are found more than once, and NMS on detections that are already written."""

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as mask_api

from .matches import ALL, FALSE, Matches
from .score_curves import operating_point


def duplicates_per_object(runs: Sequence[Matches], score_thr: float | None = None) -> float | None:
    """Detections beyond the first that are of an object's class and have an IoU of at least 0.5 with it, divided by the objects.

    Args:
        score_thr: detections below do not count. By default the model's own operating point: at 0 every model has many, since a detection
            of low score costs no AP. Give one threshold for all decoder layers of a model, or to compare with and without NMS.

    Returns:
        None where there is no object.
    """
    score_thr = operating_point(runs)['score_thr'] if score_thr is None else score_thr
    extra = sum(int(((run.outcomes[ALL, 0] == FALSE) & (run.overlaps >= 0.5) & (run.scores >= score_thr)).sum()) for run in runs)
    objects = sum(int(run.num_objects.sum()) for run in runs)
    return extra / objects if objects else None


def apply_nms(detections: Sequence[Mapping], iou: float = 0.5) -> list[Mapping]:
    """Greedy non-maximum suppression in each image and class: what overlaps a kept detection of higher score by more than ``iou`` goes.

    Args:
        detections: COCO results, bbox in xywh; of equal scores the first one stays.

    Returns:
        Those that are kept, in their order.

    Raises:
        ValueError: when ``iou`` is not in [0, 1].
    """
    if not 0 <= iou <= 1:
        raise ValueError(f'the IoU of NMS must be in [0, 1], got {iou}; 1 suppresses nothing')
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(detections):
        groups.setdefault((item['image_id'], item['category_id']), []).append(index)
    kept = [index for group in groups.values() for index in _kept(detections, group, iou)]
    return [detections[index] for index in sorted(kept)]


def _kept(detections: Sequence[Mapping], group: list[int], iou: float) -> list[int]:
    group = sorted(group, key=lambda index: -detections[index]['score'])
    boxes_xywh_abs = np.array([detections[index]['bbox'] for index in group], dtype=float)
    overlaps = mask_api.iou(boxes_xywh_abs, boxes_xywh_abs, [0] * len(group)) > iou
    alive = np.ones(len(group), dtype=bool)
    for place in range(len(group)):
        if alive[place]:
            alive[place + 1 :] &= ~overlaps[place, place + 1 :]
    return [index for index, stays in zip(group, alive) if stays]
