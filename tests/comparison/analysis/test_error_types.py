"""TIDE's error types on hand-made cases, one for each definition of the paper, and what must hold for all data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_detr_plugin.comparison.analysis.error_types import NAMES, TYPES, error_types, false_positive_types
from mmdet_detr_plugin.comparison.analysis.matches import match

from .builders import annotations, detections, random_annotations, random_detections

BOX = (0, 0, 100, 100)  # of the one object of class 1 in image 1
EDGE = (120, 120, 60, 60)  # of one of class 2 there


def gains(objects, *found) -> dict[str, float]:
    return error_types([match(annotations(objects), detections(*found))])


def only(**expected) -> dict:
    return {name: pytest.approx(expected.get(name, 0.0), abs=1e-9) for name in NAMES}


def test_perfect_detections_have_no_errors():
    assert gains([(1, 1, BOX), (1, 2, EDGE)], (1, 1, BOX, 0.9), (1, 2, EDGE, 0.3)) == only()


def test_classification_error():
    """The right box, called class 2: as class 1 it were perfect. Class 2 has no object, so its false positive costs nothing itself."""
    assert gains([(1, 1, BOX)], (1, 2, BOX, 0.9)) == only(classification=1.0, false_negative=1.0)


def test_localisation_error():
    """IoU 0.3 with the object, between 0.1 and 0.5."""
    assert gains([(1, 1, BOX)], (1, 1, (0, 0, 100, 30), 0.9)) == only(localisation=1.0)


def test_both_error_is_suppressed_not_corrected():
    """IoU 0.3 with an object of class 1, called class 2, before the right detection of class 2: precision there 1/2."""
    objects = [(1, 1, BOX), (1, 2, EDGE)]
    found = [(1, 2, (0, 0, 100, 30), 0.9), (1, 2, EDGE, 0.8), (1, 1, BOX, 0.8)]
    assert gains(objects, *found) == only(both=0.25, false_positive=0.25)


def test_duplicate_error():
    """The second detection of the first object stands before that of the second: precision 1 up to recall 0.5 (51 points), then 2/3."""
    objects, found = [(1, 1, BOX), (2, 1, BOX)], [(1, 1, BOX, 0.9), (1, 1, (0, 0, 100, 80), 0.8), (2, 1, BOX, 0.7)]
    lost = 50 / 101 / 3
    assert gains(objects, *found) == only(duplicate=lost, false_positive=lost)


@pytest.mark.parametrize('box', [(150, 150, 40, 40), (0, 0, 100, 9)])  # IoU 0 and 0.09
def test_background_error(box):
    assert gains([(1, 1, BOX)], (1, 1, box, 0.9), (1, 1, BOX, 0.8)) == only(background=0.5, false_positive=0.5)
    assert gains([(1, 1, BOX)], (2, 1, box, 0.9), (1, 1, BOX, 0.8)) == only(background=0.5, false_positive=0.5)  # an image without objects


def test_missed_error():
    """Recall ends at 0.5, with 51 of 101 points."""
    lost = 50 / 101
    assert gains([(1, 1, BOX), (2, 1, BOX)], (1, 1, BOX, 0.9)) == only(missed=lost, false_negative=lost)


@pytest.mark.parametrize('box, category, kind', [((0, 0, 100, 30), 1, 'localisation'), (BOX, 2, 'classification')])
def test_objects_that_another_error_aims_at_are_not_missed(box, category, kind):
    """The object of the first image is covered by an error of low score; that of the second is found."""
    found = gains([(1, 1, BOX), (2, 1, BOX)], (2, 1, BOX, 0.9), (1, category, box, 0.1))
    assert found == only(**{kind: 50 / 101}, false_negative=50 / 101)


def test_only_the_best_error_at_an_object_is_corrected():
    """Two localisation errors at one object: mended, the better is its detection, the other goes."""
    found = gains([(1, 1, BOX)], (1, 1, (0, 0, 100, 30), 0.6), (1, 1, (0, 0, 30, 100), 0.9))
    assert found['localisation'] == pytest.approx(1.0)


def test_an_error_of_another_type_does_not_stand_in_the_way():
    """Localisation and classification errors at one object: mending either type finds it."""
    found = gains([(1, 1, BOX)], (1, 1, (0, 0, 100, 30), 0.6), (1, 2, BOX, 0.9))
    assert found['classification'] == pytest.approx(1.0) and found['localisation'] == pytest.approx(1.0)


def test_errors_at_found_objects_are_only_suppressed():
    """A localisation error before the right detection: without it precision is 1."""
    assert gains([(1, 1, BOX)], (1, 1, (0, 0, 100, 30), 0.9), (1, 1, BOX, 0.8)) == only(localisation=0.5, false_positive=0.5)


@pytest.mark.parametrize('box, category, kind', [((0, 0, 100, 30), 1, 'localisation'), (BOX, 2, 'classification')])
def test_mending_finds_no_object_twice(box, category, kind):
    """The error aims at the object that is found; the other one stays missed."""
    found = gains([(1, 1, BOX), (2, 1, BOX)], (1, 1, BOX, 0.9), (1, category, box, 0.8))
    assert found == only(missed=50 / 101, false_negative=50 / 101)


def test_the_best_error_is_kept_across_classes():
    """Two other classes claim the object, the surer one before a false positive of its own class, the other after it."""
    truth = annotations([(1, 1, BOX)], classes=3)
    found = detections((1, 2, BOX, 0.5), (1, 3, BOX, 0.9), (1, 1, (150, 150, 40, 40), 0.7))
    assert error_types([match(truth, found)])['classification'] == pytest.approx(1.0)


def test_detections_in_crowds_are_no_errors():
    objects = [(1, 1, BOX), (1, 1, (100, 0, 100, 200), dict(iscrowd=1))]
    assert gains(objects, (1, 1, (120, 20, 30, 30), 0.9), (1, 1, BOX, 0.8)) == only()


def test_types_in_order_of_precedence():
    """Localisation before classification before duplicate, as in the authors' program."""
    objects = [(1, 1, BOX), (1, 2, (0, 0, 100, 40)), (2, 1, BOX), (2, 2, (0, 0, 100, 90))]
    found = [(1, 1, (0, 0, 100, 40), 0.9), (2, 1, BOX, 0.9), (2, 1, (0, 0, 100, 95), 0.8), (1, 2, (0, 0, 100, 40), 0.1)]
    kinds, aims = false_positive_types(match(annotations(objects), detections(*found)))
    assert [TYPES[kind] if kind >= 0 else None for kind in kinds] == ['localisation', None, 'classification', None]
    assert aims.tolist() == [0, -1, 3, -1]


def test_nothing_claimed_is_all_missed_and_no_object_is_undefined():
    assert error_types([match(annotations([(1, 1, BOX)]), [])]) == only(missed=1.0, false_negative=1.0)
    assert error_types([match(annotations([]), detections((1, 1, BOX, 0.5)))]) == dict.fromkeys(NAMES)
    assert error_types([match(dict(images=[], categories=[], annotations=[]), [])]) == dict.fromkeys(NAMES)


def test_wrong_claims_are_left_when_misses_are_forgiven():
    assert gains([(1, 1, BOX)], (1, 1, (150, 150, 40, 40), 0.9)) == only(background=0.0, missed=0.0)


def test_runs_are_averaged():
    truth = annotations([(1, 1, BOX)])
    runs = [match(truth, []), match(truth, detections((1, 1, BOX, 0.5)))]
    assert error_types(runs) == only(missed=0.5, false_negative=0.5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_every_false_positive_has_one_type_and_no_mending_harms(seed):
    rng = np.random.default_rng(seed)
    truth = random_annotations(rng)
    run = match(truth, random_detections(rng, truth, noise=0.3))
    kinds, aims = false_positive_types(run)
    assert ((kinds >= 0) == (run.outcomes[0, 0] == 0)).all()
    assert (run.annotations.objects.images[aims[aims >= 0]] == run.detections.images[aims >= 0]).all()
    found = error_types([run])
    assert min(found.values()) >= -1e-12
    assert max(found.values()) <= 1 - run.metrics()['AP50'] + 1e-12
    assert found['false_negative'] >= found['missed'] - 1e-12
