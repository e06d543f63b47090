"""Precision-recall curves, calibration and operating points, hand-computed and against pycocotools."""

import numpy as np
import pytest

from mmdet_detr_plugin.comparison.analysis.average_precision import precision_at_recalls
from mmdet_detr_plugin.comparison.analysis.by_group import by_class
from mmdet_detr_plugin.comparison.analysis.matches import match
from mmdet_detr_plugin.comparison.analysis.score_curves import calibration, operating_point, precision_recall

from .builders import annotations, by_pycocotools, detections, random_annotations, random_detections

BOX, FAR = (0, 0, 40, 40), (100, 100, 40, 40)


@pytest.fixture(scope='module')
def random_data():
    rng = np.random.default_rng(3)
    truth = random_annotations(rng)
    return truth, [random_detections(rng, truth) for _ in range(2)]


def test_curves_and_classes_equal_pycocotools_and_are_averaged_over_runs(random_data):
    truth, found = random_data
    expected = np.stack([by_pycocotools(truth, one).eval['precision'][..., 0, 2] for one in found])  # (runs, T, 101, K)
    runs = [match(truth, one) for one in found]
    curves = precision_recall(runs)
    known = expected[0, 0, 0] > -1
    assert known.tolist() == [True] * 4 + [False]
    assert curves['recall'] == pytest.approx(np.linspace(0, 1, 101))
    for name, threshold in (('0.5', 0), ('0.75', 5)):
        assert curves['precision'][name] == pytest.approx(expected[:, threshold][:, :, known].mean((0, 2)), abs=1e-9)
    rows = by_class(runs)
    assert [row['name'] for row in rows] == [f'class {number}' for number in range(1, 6)]
    assert [row['AP'] for row in rows[:4]] == pytest.approx(expected[..., known].mean((0, 1, 2)), abs=1e-9)
    assert [row['AP50'] for row in rows[:4]] == pytest.approx(expected[:, 0][..., known].mean((0, 1)), abs=1e-9)
    objects = [sum(item['category_id'] == number and not item['iscrowd'] for item in truth['annotations']) for number in range(1, 6)]
    assert [row['objects'] for row in rows] == objects and objects[4] == 0
    assert rows[4] == dict(name='class 5', objects=0, AP=None, AP50=None)


def test_precision_by_hand():
    """Right, wrong, right, of four objects: precision 1 up to recall 0.25, 2/3 up to 0.5, then nothing."""
    curve = precision_at_recalls(np.array([True, False, True]), 4)
    assert curve == pytest.approx([1.0] * 26 + [2 / 3] * 25 + [0.0] * 50)
    assert precision_at_recalls(np.zeros(3, dtype=bool), 4).tolist() == [0.0] * 101
    assert precision_at_recalls(np.zeros(0, dtype=bool), 1).tolist() == [0.0] * 101


def test_curves_without_detections_or_objects():
    assert precision_recall([match(annotations([(1, 1, BOX)]), [])])['precision'] == {'0.5': [0.0] * 101, '0.75': [0.0] * 101}
    assert precision_recall([match(annotations([]), [])])['precision'] == {'0.5': None, '0.75': None}


def test_calibration_by_hand():
    truth = annotations([(1, 1, BOX), (2, 1, BOX), (2, 2, FAR, dict(iscrowd=1))])
    found = detections(
        (1, 1, BOX, 0.3), (1, 1, FAR, 0.38), (1, 2, BOX, 1.0), (2, 1, BOX, 0.95), (2, 1, BOX, 0.05), (2, 2, (110, 110, 9, 9), 0.5)
    )
    result = calibration([match(truth, found)])
    bins = result['bins']
    assert [row['count'] for row in bins] == [1, 0, 0, 2, 0, 0, 0, 0, 0, 2]  # 0.3 and 1.0 at a bin's end; the one in the crowd left out
    assert bins[3] == dict(lower=0.3, upper=0.4, count=2, confidence=pytest.approx(0.34), precision=0.5)
    assert bins[1] == dict(lower=0.1, upper=0.2, count=0, confidence=None, precision=None)
    assert bins[9]['precision'] == 0.5 and bins[9]['confidence'] == pytest.approx(0.975)
    assert result['expected_error'] == pytest.approx((1 * 0.05 + 2 * 0.16 + 2 * 0.475) / 5)


def test_calibrated_scores_have_no_error_and_runs_are_pooled():
    truth = annotations([(image, 1, BOX) for image in range(1, 5)], images=4)
    right = [(image, 1, BOX, 0.75) for image in (1, 2, 3)]
    run = match(truth, detections(*right, (4, 1, FAR, 0.75)))
    assert calibration([run])['expected_error'] == pytest.approx(0.0)
    pooled = calibration([run, match(truth, detections((1, 1, BOX, 0.75)))])
    assert pooled['bins'][7]['count'] == 5 and pooled['expected_error'] == pytest.approx(0.05)


def test_calibration_without_detections():
    result = calibration([match(annotations([(1, 1, BOX)]), [])], bins=4)
    assert result['expected_error'] is None
    assert [(row['lower'], row['upper'], row['count']) for row in result['bins']] == [
        (0, 0.25, 0),
        (0.25, 0.5, 0),
        (0.5, 0.75, 0),
        (0.75, 1, 0),
    ]


def test_operating_point_by_hand():
    """Of three objects: at 0.9 F1 is 2/4, at 0.7 4/5, at 0.6 4/6 because two detections of that score come together, at 0.2 6/8."""
    truth = annotations([(1, 1, BOX), (1, 2, FAR), (2, 1, BOX)])
    found = detections((1, 1, BOX, 0.9), (1, 2, FAR, 0.7), (2, 1, FAR, 0.2), (2, 1, BOX, 0.2), (2, 2, FAR, 0.2))
    assert operating_point([match(truth, found)]) == dict(score_thr=0.7, precision=1.0, recall=pytest.approx(2 / 3), f1=pytest.approx(0.8))


def test_operating_point_is_the_best_of_all_thresholds(random_data):
    truth, found = random_data
    runs = [match(truth, one) for one in found]
    point = operating_point(runs)
    outcomes, scores = (np.concatenate(parts) for parts in zip(*[(run.outcomes[0, 0], run.scores) for run in runs]))
    objects, best = 2 * runs[0].num_objects.sum(), {}
    for threshold in np.unique(scores):
        taken = outcomes[scores >= threshold]
        hits, false = (taken == 1).sum(), (taken == 0).sum()
        best[threshold] = 2 * hits / (hits + false + objects)
    assert point['f1'] == pytest.approx(max(best.values()))
    assert point['score_thr'] == max(threshold for threshold, f1 in best.items() if f1 == max(best.values()))
    assert point['f1'] == pytest.approx(2 * point['precision'] * point['recall'] / (point['precision'] + point['recall']))


def test_operating_point_of_nothing():
    truth = annotations([(1, 1, BOX)])
    assert operating_point([match(truth, [])]) == dict(score_thr=1.0, precision=None, recall=0.0, f1=0.0)
    wrong = detections((1, 1, FAR, 0.3), (1, 1, FAR, 0.6))
    assert operating_point([match(truth, wrong)]) == dict(score_thr=0.6, precision=0.0, recall=0.0, f1=0.0)
    assert operating_point([match(annotations([]), wrong)]) == dict(score_thr=0.6, precision=0.0, recall=None, f1=None)
    assert operating_point([match(annotations([]), [])]) == dict(score_thr=1.0, precision=None, recall=None, f1=None)
