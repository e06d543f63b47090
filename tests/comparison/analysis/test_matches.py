"""Matches give pycocotools' AP, also over images that are repeated or left out."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_detr_plugin.comparison.analysis.matches import ALL, FALSE, HIT, IGNORED, METRICS, match

from .builders import annotations, by_pycocotools, detections, random_annotations, random_detections


def pycocotools_figures(truth: dict, found: list[dict]) -> list:
    """The six, None where pycocotools says -1."""
    return [None if value == -1 else pytest.approx(value, abs=1e-9) for value in by_pycocotools(truth, found).stats[:6]]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), crowds=st.sampled_from([0.0, 0.3]), digits=st.sampled_from([1, None]))
def test_six_figures_equal_pycocotools(seed, crowds, digits):
    rng = np.random.default_rng(seed)
    truth = random_annotations(rng, crowds=crowds)
    found = random_detections(rng, truth, digits=digits)
    metrics = match(truth, found).metrics()
    assert list(metrics) == list(METRICS)
    assert list(metrics.values()) == pycocotools_figures(truth, found)


def test_ids_may_be_texts():
    """COCO's format does not ask for numbers, and some exporters write file names or UUIDs."""
    rng = np.random.default_rng(3)
    truth = random_annotations(rng)
    found = random_detections(rng, truth)

    def as_text(items, *keys):
        return [item | {key: f'{item[key]:06}' for key in keys} for item in items]

    texts = truth | dict(images=as_text(truth['images'], 'id'), categories=as_text(truth['categories'], 'id'))
    texts['annotations'] = as_text(truth['annotations'], 'image_id', 'category_id')
    both = match(texts, as_text(found, 'image_id', 'category_id')), match(truth, found)
    assert both[0].metrics() == both[1].metrics()
    np.testing.assert_array_equal(both[0].class_metric('AP'), both[1].class_metric('AP'))  # NaN for a class without objects
    with pytest.raises(ValueError, match='image_id 999999, which the annotation file does not list'):
        match(texts, as_text([found[0] | dict(image_id=999999)], 'image_id', 'category_id'))


def test_more_than_a_hundred_detections_of_a_class_are_cut_as_by_pycocotools():
    rng = np.random.default_rng(0)
    truth = random_annotations(rng, images=6)
    found = random_detections(rng, truth, clutter=700, digits=2)
    matches = match(truth, found)
    assert len(matches.scores) < len(found)
    assert list(matches.metrics().values()) == pycocotools_figures(truth, found)


def test_objects_at_the_ends_of_area_ranges_count_as_for_pycocotools():
    areas = (0.0, 1.0, 32.0**2, 96.0**2)
    truth = annotations([(1, 1, (50 * index, 0, 40, 40), dict(area=area)) for index, area in enumerate(areas)], images=1, classes=1)
    found = detections(*((1, 1, (50 * index, 0, 40, 40), 0.9 - index / 10) for index in (0, 1, 3)))
    assert list(match(truth, found).metrics().values()) == pycocotools_figures(truth, found)
    assert match(truth, found).counted_objects.sum(1).tolist() == [4, 3, 2, 1]


def repeated(truth: dict, found: list[dict], weights: list[int]) -> tuple[dict, list[dict]]:
    """The data with images that occur as often as their weight says, in the order of their ids."""
    images, objects, claims = [], [], []
    for image_id, weight in zip(sorted(image['id'] for image in truth['images']), weights):
        for _ in range(weight):
            images.append(dict(id=len(images) + 1))
            objects += [item | dict(image_id=len(images)) for item in truth['annotations'] if item['image_id'] == image_id]
            claims += [item | dict(image_id=len(images)) for item in found if item['image_id'] == image_id]
    objects = [item | dict(id=number) for number, item in enumerate(objects, start=1)]
    return truth | dict(images=images, annotations=objects), claims


@pytest.mark.parametrize('seed', range(4))
def test_weights_equal_pycocotools_on_repeated_images(seed):
    rng = np.random.default_rng(seed)
    truth = random_annotations(rng, images=16, crowds=0.2)
    found = random_detections(rng, truth, digits=None)
    weights = rng.integers(0, 4, size=(16, 3))
    matches = match(truth, found)
    figures = np.stack([matches.metric(name, weights) for name in METRICS])  # (6, 3)
    for column in range(3):
        expected = by_pycocotools(*repeated(truth, found, weights[:, column].tolist())).stats[:6]
        assert figures[:, column] == pytest.approx(np.where(expected == -1, np.nan, expected), abs=1e-9, nan_ok=True)


def test_weightings_do_not_influence_each_other():
    rng = np.random.default_rng(1)
    truth = random_annotations(rng)
    matches, weights = match(truth, random_detections(rng, truth)), rng.integers(0, 3, size=(30, 7))
    alone = [matches.metric('AP', weights[:, [column]])[0] for column in range(7)]
    assert matches.metric('AP', weights).tolist() == alone
    assert len(set(alone)) == 7


def test_no_detections_is_zero_and_no_objects_is_undefined():
    truth = annotations([(1, 1, (0, 0, 20, 20))])
    assert match(truth, []).metrics() == {'AP': 0.0, 'AP50': 0.0, 'AP75': 0.0, 'AP S': 0.0, 'AP M': None, 'AP L': None}
    assert set(match(annotations([]), detections((1, 1, (0, 0, 9, 9), 0.5))).metrics().values()) == {None}
    assert set(match(dict(images=[], categories=[], annotations=[]), []).metrics().values()) == {None}
    assert np.isnan(match(truth, []).metric('AP', np.array([[0], [5]]))).all()  # only the image without objects is left


def test_details_of_a_hand_made_image():
    truth = annotations([(1, 1, (0, 0, 20, 20)), (1, 1, (50, 50, 100, 100), dict(iscrowd=1)), (1, 2, (0, 100, 40, 40))])
    found = detections(
        (1, 1, (0, 0, 20, 20), 0.9),
        (1, 1, (0, 0, 20, 15), 0.8),  # the same object again, IoU 0.75
        (1, 1, (60, 60, 10, 10), 0.7),  # inside the crowd
        (1, 1, (0, 100, 40, 40), 0.6),  # on an object of another class
        (2, 2, (0, 0, 5, 5), 0.5),
    )
    matches = match(truth, found)
    assert matches.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert matches.outcomes[ALL, 0].tolist() == [HIT, FALSE, IGNORED, FALSE, FALSE]
    assert matches.matched_objects.tolist() == [0, -1, 1, -1, -1]
    assert matches.overlaps == pytest.approx([1.0, 0.75, 0.0, 0.0, 0.0])
    assert matches.num_objects.tolist() == [1, 1]


def test_object_with_id_0_is_found():
    """pycocotools takes id 0 for no match, and calls the detection wrong."""
    truth, found = annotations([(1, 1, (0, 0, 20, 20))]), detections((1, 1, (0, 0, 20, 20), 0.9))
    truth['annotations'][0]['id'] = 0
    assert by_pycocotools(truth, found).stats[0] == 0.0
    assert match(truth, found).metrics()['AP'] == pytest.approx(1.0)


def test_file_and_content_are_the_same_and_stay_untouched(tmp_path):
    rng = np.random.default_rng(2)
    truth = random_annotations(rng)
    found = random_detections(rng, truth)
    before = copy.deepcopy((truth, found))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    assert match(tmp_path / 'truth.json', found).metrics() == match(truth, found).metrics()
    assert (truth, found) == before


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(image_id=77), r'a detection has image_id 77, which the annotation file does not list \(2 are listed\); use the annotation'),
        (dict(category_id=9), r'a detection has category_id 9'),
        (dict(score=float('nan')), r"expected scores in \[0, 1\] and finite boxes, got .*'score': nan.*diverged"),
        (dict(score=1.5), r"expected scores in \[0, 1\].*'score': 1.5"),
        (dict(bbox=[0, 0, float('inf'), 5]), r'finite boxes, got .*inf'),
    ],
)
def test_detections_that_cannot_be_judged_are_named(change, message):
    found = detections((1, 1, (0, 0, 5, 5), 0.5), (2, 2, (0, 0, 5, 5), 0.5))
    with pytest.raises(ValueError, match=message):
        match(annotations([(1, 1, (0, 0, 5, 5))]), [found[0], found[1] | change])


def test_wrong_figures_and_weights_are_named():
    matches = match(annotations([(1, 1, (0, 0, 5, 5))]), [])
    with pytest.raises(ValueError, match="expected one of AP, AP50, .*, got 'mAP'"):
        matches.metric('mAP')
    with pytest.raises(ValueError, match=r'integer weights of shape \(2, weightings\), got int64 of shape \(3, 1\)'):
        matches.metric('AP', np.ones((3, 1), dtype=np.int64))
    with pytest.raises(ValueError, match='integer weights .* got float64'):
        matches.metric('AP', np.ones((2, 1)))
