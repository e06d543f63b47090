"""Duplicates by hand; NMS against mmcv's."""

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms

from mmdet_detr_plugin.comparison.analysis.duplicates import apply_nms, duplicates_per_object
from mmdet_detr_plugin.comparison.analysis.matches import match

from .builders import annotations, detections, random_annotations, random_detections

BOX, SAME, FAR = (0, 0, 100, 100), (0, 0, 100, 90), (150, 150, 20, 20)


def test_duplicates_by_hand():
    """Image 1: one object, found three times (one of them below 0.3), and by another class; image 2: one object, found once."""
    truth = annotations([(1, 1, BOX), (2, 1, BOX), (2, 1, FAR, dict(iscrowd=1))])
    found = detections(
        *((1, 1, BOX, 0.9), (1, 1, SAME, 0.8), (1, 1, BOX, 0.1), (1, 2, BOX, 0.9), (1, 1, FAR, 0.9)),
        *((2, 1, BOX, 0.9), (2, 1, FAR, 0.9), (2, 1, FAR, 0.9)),  # more than one in a crowd is no duplicate
    )
    run = match(truth, found)
    assert duplicates_per_object([run], score_thr=0.3) == 0.5
    assert duplicates_per_object([run], score_thr=0.8) == 0.5
    assert duplicates_per_object([run], score_thr=0.85) == 0.0
    assert duplicates_per_object([run], score_thr=0.0) == 1.0
    assert duplicates_per_object([run, match(truth, [])], score_thr=0.0) == 0.5


def test_duplicates_at_the_operating_point_by_default():
    """The best F1 is at 0.7, which takes one of the two duplicates."""
    truth = annotations([(1, 1, BOX), (2, 1, BOX)])
    run = match(truth, detections((1, 1, BOX, 0.9), (1, 1, SAME, 0.8), (2, 1, BOX, 0.7), (2, 1, SAME, 0.6)))
    assert duplicates_per_object([run]) == 0.5


def test_duplicates_without_detections_or_objects():
    assert duplicates_per_object([match(annotations([(1, 1, BOX)]), [])]) == 0.0
    assert duplicates_per_object([match(annotations([]), detections((1, 1, BOX, 0.5)))]) is None


def test_nms_leaves_no_duplicates():
    rng = np.random.default_rng(0)
    truth = random_annotations(rng)
    found = random_detections(rng, truth, noise=0.05)
    assert duplicates_per_object([match(truth, found)], score_thr=0.0) > 0.1
    assert duplicates_per_object([match(truth, apply_nms(found, 0.3))], score_thr=0.0) < 0.03


@pytest.mark.parametrize('iou', [0.3, 0.5, 0.7])
def test_nms_keeps_what_mmcv_keeps(iou):
    rng = np.random.default_rng(int(10 * iou))
    boxes_xywh_abs = np.concatenate([rng.uniform(0, 60, size=(400, 2)), rng.uniform(20, 60, size=(400, 2))], axis=1)
    scores, classes = rng.permutation(400) / 400, rng.integers(1, 4, size=400)
    found = detections(*zip([1] * 400, classes.tolist(), boxes_xywh_abs.tolist(), scores.tolist()))
    boxes_xyxy_abs = torch.tensor(np.concatenate([boxes_xywh_abs[:, :2], boxes_xywh_abs[:, :2] + boxes_xywh_abs[:, 2:]], axis=1)).float()
    _, kept = batched_nms(boxes_xyxy_abs, torch.tensor(scores).float(), torch.tensor(classes), dict(type='nms', iou_threshold=iou))
    assert apply_nms(found, iou) == [found[index] for index in sorted(kept.tolist())]
    assert 20 < len(kept) < 350


def test_nms_works_by_image_and_class_and_keeps_the_order():
    found = detections((1, 1, SAME, 0.5), (1, 1, BOX, 0.9), (2, 1, BOX, 0.5), (1, 2, BOX, 0.5), (1, 1, FAR, 0.1), (2, 1, BOX, 0.5))
    assert apply_nms(found) == [found[1], found[2], found[3], found[4]]
    assert apply_nms(found, 0.9) == found[:5]  # an IoU of just 0.9 does not suppress
    assert apply_nms(found, 1.0) == found
    assert apply_nms([]) == []


def test_nms_with_an_impossible_threshold_is_named():
    with pytest.raises(ValueError, match=r'the IoU of NMS must be in \[0, 1\], got 50'):
        apply_nms([], 50)
