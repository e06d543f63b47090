"""Counts of cases small enough to count by hand, and of random maps against another implementation."""

import numpy as np
import pytest
import torch

from mmdet_detr_plugin.evaluation.panoptic_quality import Segment, SegmentCounts, count_segments

A, B, STUFF = range(3)


def maps(*rows: str) -> np.ndarray:
    return np.array([[int(number) for number in row.split()] for row in rows])


def counted(gt_map, gt_segments, pred_map, pred_segments) -> list[tuple]:
    """(iou, tp, fp, fn) of A, B and STUFF."""
    counts = count_segments(gt_map, [Segment(*one) for one in gt_segments], pred_map, [Segment(*one) for one in pred_segments], 3)
    assert counts.tp.dtype == counts.fp.dtype == counts.fn.dtype == np.int64
    return [tuple(map(float, of_label)) for of_label in zip(counts.iou, counts.tp, counts.fp, counts.fn)]


NOTHING = (0, 0, 0, 0)
HALVES = maps('1 1 1 1 2 2 2 2')
# ground truth, its segments (id, label, crowd), prediction, its segments (id, label), and (iou, tp, fp, fn) of A, B and STUFF
CASES = {
    'perfect': (HALVES, [(1, A), (2, STUFF)], HALVES, [(1, A), (2, STUFF)], [(1, 1, 0, 0), NOTHING, (1, 1, 0, 0)]),
    'other ids': (HALVES, [(1, A), (2, B)], 7 * HALVES, [(7, A), (14, B)], [(1, 1, 0, 0), (1, 1, 0, 0), NOTHING]),
    # 3 of 5, and 3 of 4 pixels
    'shifted': (HALVES, [(1, A), (2, B)], maps('1 1 1 2 2 2 2 2'), [(1, A), (2, B)], [(0.75, 1, 0, 0), (0.8, 1, 0, 0), NOTHING]),
    'IoU of one half is no match': (HALVES, [(1, A)], maps('1 1 0 0 0 0 0 0'), [(1, A)], [(0, 0, 1, 1), NOTHING, NOTHING]),
    'other class': (HALVES, [(1, A), (2, STUFF)], HALVES, [(1, B), (2, STUFF)], [(0, 0, 0, 1), (0, 0, 1, 0), (1, 1, 0, 0)]),
    'no prediction': (HALVES, [(1, A), (2, A)], 0 * HALVES, [], [(0, 0, 0, 2), NOTHING, NOTHING]),
    'no ground truth, all void': (0 * HALVES, [], HALVES, [(1, A), (2, B)], [NOTHING, NOTHING, NOTHING]),
    'all void, no prediction': (0 * HALVES, [], 0 * HALVES, [], [NOTHING, NOTHING, NOTHING]),
    # 2 and 2 of 4 pixels; half is not more than half
    'half in void': (maps('0 0 2 2 2 2 2 2'), [(2, B)], maps('1 1 1 1 0 0 0 0'), [(1, A)], [(0, 0, 1, 0), (0, 0, 0, 1), NOTHING]),
    'most in void': (maps('0 0 0 2 2 2 2 2'), [(2, B)], maps('1 1 1 1 0 0 0 0'), [(1, A)], [NOTHING, (0, 0, 0, 1), NOTHING]),
    # 2 of 6 - 4 pixels
    'void is not in the union': (maps('1 1 0 0 0 0 2 2'), [(1, A)], maps('1 1 1 1 1 1 0 0'), [(1, A)], [(1, 1, 0, 0), NOTHING, NOTHING]),
    'match in spite of most in void': (
        maps('1 1 0 0 0 0 3 3'), [(1, A), (3, B)], maps('1 1 1 1 1 1 1 0'), [(1, A)], [(2 / 3, 1, 0, 0), (0, 0, 0, 1), NOTHING]
    ),
    'crowd is neither missed nor matched': (HALVES, [(1, A, True), (2, B)], HALVES, [(1, A), (2, B)], [NOTHING, (1, 1, 0, 0), NOTHING]),
    'crowd without prediction': (HALVES, [(1, A, True)], 0 * HALVES, [], [NOTHING, NOTHING, NOTHING]),
    'crowd of another class': (HALVES, [(1, A, True)], HALVES, [(1, B)], [NOTHING, (0, 0, 1, 0), NOTHING]),
    # 2 in void, 1 in the crowd, 1 elsewhere
    'void and crowd together': (maps('0 0 1 2 2 2 2 2'), [(1, A, True), (2, B)], maps('1 1 1 1 2 2 2 2'), [(1, A), (2, B)],
                                [NOTHING, (0.8, 1, 0, 0), NOTHING]),
    # the crowd's pixels are in the union
    'crowd in the union': (maps('1 1 3 3 3 3 3 3'), [(1, A), (3, A, True)], maps('1 1 1 1 0 0 0 0'), [(1, A)],
                           [(0, 0, 1, 1), NOTHING, NOTHING]),
    # as in panopticapi, pixels of an id that the file does not list are no void
    'unlisted ids': (maps('9 9 9 2 2 2 2 2'), [(2, B)], maps('1 1 1 1 0 0 0 0'), [(1, A)], [(0, 0, 1, 0), (0, 0, 0, 1), NOTHING]),
    'two of one class': (maps('1 1 1 2 2 2 0 0'), [(1, A), (2, A)], maps('5 5 6 6 6 6 0 0'), [(5, A), (6, A)],
                         [(2 / 3 + 3 / 4, 2, 0, 0), NOTHING, NOTHING]),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_counts_are_those_counted_by_hand(case):
    *inputs, expected = CASES[case]
    assert counted(*inputs) == [pytest.approx(of_label) for of_label in expected]


def test_qualities_are_the_papers():
    counts = SegmentCounts(iou=np.array([1.5, 0, 0]), tp=np.array([2, 0, 0]), fp=np.array([1, 3, 0]), fn=np.array([3, 0, 0]))
    np.testing.assert_allclose(counts.qualities(), [[1.5 / 4, 0, np.nan], [0.75, 0, np.nan], [0.5, 0, np.nan]])


@pytest.mark.parametrize('seed', range(5))
def test_random_maps_give_what_torchmetrics_gives(seed):
    detection = pytest.importorskip('torchmetrics.detection')
    rng = np.random.default_rng(seed)
    things, num_classes = 3, 5
    metric = detection.PanopticQuality(set(range(things)), set(range(things, num_classes)), return_per_class=True, return_sq_and_rq=True)
    parts = []
    for _ in range(6):
        values = [label + 1000 * number for label in range(things) for number in (1, 2)] + list(range(things, num_classes))
        gt = np.kron(rng.choice(values, (6, 6)), np.ones((8, 8), int))
        pred = np.where(rng.random(gt.shape) < 0.2, np.roll(gt, 3, axis=1), gt)
        pred[8:16] = rng.choice(values)
        parts.append(count_segments(gt + 1, segments(gt), pred + 1, segments(pred), num_classes))
        metric.update(pairs(pred), pairs(gt))
    theirs = metric.compute().T.numpy()
    ours = SegmentCounts.summed(parts, num_classes).qualities()
    assert ours[0].min() > 0 and ours[0].max() < 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def segments(label_map: np.ndarray) -> list[Segment]:
    """Ids are those of the map + 1, as 0 is void."""
    return [Segment(value + 1, value % 1000) for value in np.unique(label_map).tolist()]


def pairs(label_map: np.ndarray) -> torch.Tensor:
    """(1, H, W, 2): category and instance."""
    return torch.from_numpy(np.stack((label_map % 1000, label_map // 1000), axis=-1))[None]
