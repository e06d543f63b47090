"""Panoptic quality (Kirillov et al. 2019, section 4), with the rules of COCO's evaluation for void pixels and crowds.

Deliberate difference from panopticapi's evaluation: where an image has several crowds of one class, all of them excuse a prediction; there,
the last one does. COCO has at most one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Segment:
    """A segment of an image's ground truth, or of its prediction (which has no crowds)."""

    id: int
    label: int
    is_crowd: bool = False


@dataclass
class SegmentCounts:
    """How an image's segments, or those of many images, match: all arrays are (K,), by label.

    Attributes:
        iou: sum over the matched pairs.
        tp, fp, fn: matched pairs, predictions without a pair, ground truth without one.
    """

    iou: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @classmethod
    def summed(cls, parts: Iterable['SegmentCounts'], num_classes: int) -> 'SegmentCounts':
        total = cls(np.zeros(num_classes), *np.zeros((3, num_classes), dtype=np.int64))
        for part in parts:
            total.iou += part.iou
            total.tp += part.tp
            total.fp += part.fp
            total.fn += part.fn
        return total

    def qualities(self) -> np.ndarray:
        """PQ, SQ and RQ of each class, (3, K) from 0 to 1; NaN for a class that occurs neither in ground truth nor predictions."""
        occurs = self.tp + self.fp + self.fn > 0
        weight = np.where(occurs, self.tp + 0.5 * self.fp + 0.5 * self.fn, np.nan)
        sq = np.where(occurs, self.iou / np.maximum(self.tp, 1), np.nan)
        return np.stack((self.iou / weight, sq, self.tp / weight))


def count_segments(
    gt_map: np.ndarray, gt_segments: Sequence[Segment], pred_map: np.ndarray, pred_segments: Sequence[Segment], num_classes: int
) -> SegmentCounts:
    """Match the segments of one image, and count.

    A prediction matches a ground truth of its class when their IoU is above 0.5, without the pixels that the ground truth leaves void;
    there is at most one such pair. A crowd is never matched and never missed. A prediction without a pair does not count when more than
    half of it lies in void and crowds of its class.

    Args:
        gt_map: (H, W), segment ids; 0 is void. Pixels of ids that are not among the segments are no void, as in panopticapi.
        pred_map: (H, W), segment ids; those that are not among the segments are pixels without a prediction.
        num_classes: labels are below it.
    """
    table = _overlaps(gt_map, [0, *(segment.id for segment in gt_segments)], pred_map, [segment.id for segment in pred_segments])
    in_void, inside = table[0, :-1], table[1:-1, :-1]  # (P,), (G, P)
    areas, gt_areas = table[:, :-1].sum(0), table[1:-1].sum(1)  # (P,), (G,)
    gt_labels, gt_crowds = _fields(gt_segments)
    labels, _ = _fields(pred_segments)

    is_same = gt_labels[:, None] == labels
    iou = inside / np.maximum(gt_areas[:, None] + areas - inside - in_void, 1)
    is_match = is_same & ~gt_crowds[:, None] & (iou > 0.5)
    in_own_crowd = (inside * (is_same & gt_crowds[:, None])).sum(0)
    is_excused = 2 * (in_void + in_own_crowd) > areas

    of_gt, of_pred = is_match.any(1), is_match.any(0)
    return SegmentCounts(
        iou=np.bincount(gt_labels[of_gt], weights=iou.max(1, initial=0, where=is_match)[of_gt], minlength=num_classes),
        tp=np.bincount(gt_labels[of_gt], minlength=num_classes),
        fp=np.bincount(labels[~of_pred & ~is_excused], minlength=num_classes),
        fn=np.bincount(gt_labels[~of_gt & ~gt_crowds], minlength=num_classes),
    )


def _overlaps(gt_map: np.ndarray, gt_ids: list[int], pred_map: np.ndarray, pred_ids: list[int]) -> np.ndarray:
    """Pixels that each pair of ids shares; the last row and column are those of ids that are not listed."""
    shape = len(gt_ids) + 1, len(pred_ids) + 1
    pairs = _positions(gt_map, gt_ids) * shape[1] + _positions(pred_map, pred_ids)
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)


def _positions(segment_map: np.ndarray, ids: list[int]) -> np.ndarray:
    """Where each pixel's id stands in ``ids``, (H * W,); their number where it does not."""
    found, inverse = np.unique(segment_map, return_inverse=True)
    position = {segment_id: index for index, segment_id in enumerate(ids)}
    return np.array([position.get(value, len(ids)) for value in found.tolist()], dtype=np.int64)[inverse.reshape(-1)]


def _fields(segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([segment.label for segment in segments], dtype=np.int64)
    return labels, np.array([segment.is_crowd for segment in segments], dtype=bool)
