"""Learning curves: means over seeds, epochs to a share of the best, predicted crossings."""

import math

import pytest

from mmdet_detr_plugin.comparison.learning_curves import crossover, epochs_to, mean_curve


def saturating(limit: float, pace: float, epochs: int = 10) -> list[tuple[float, float]]:
    return [(epoch, limit * (1 - math.exp(-epoch / pace))) for epoch in range(1, epochs + 1)]


def test_mean_is_taken_where_every_seed_was_evaluated():
    first = [dict(epoch=1, AP=0.1), dict(epoch=2, AP=0.3)]
    second = [dict(epoch=1, AP=0.3), dict(epoch=2, AP=None), dict(epoch=3, AP=0.5)]
    assert mean_curve([first, second]) == [(1, pytest.approx(0.2))]
    assert mean_curve([]) == mean_curve([[], [dict(epoch=1, AP=None)]]) == []
    assert mean_curve([first, []]) == [(1, 0.1), (2, 0.3)]


def test_epochs_to_shares_of_the_best():
    curve = [(1, 0.1), (2, 0.26), (3, 0.47), (4, 0.5), (5, 0.4)]
    assert epochs_to(curve) == {'50': 2, '90': 3}
    assert epochs_to([(1, 0.0)]) == {'50': None, '90': None}
    assert epochs_to([]) == {'50': None, '90': None}


def test_crossing_of_known_curves_is_predicted_where_it_is():
    """0.3 (1 - exp(-e / 3)) and 0.6 (1 - exp(-e / 20)) cross where exp(-e / 20) = (1 + exp(-e / 3)) / 2: between 13 and 14."""
    found = crossover('fast', saturating(0.3, 3.0), 'slow', saturating(0.6, 20.0))
    exact = next(e / 100 for e in range(1000, 2000) if 0.6 * (1 - math.exp(-e / 2000)) > 0.3 * (1 - math.exp(-e / 300)))
    assert found['epoch'] == pytest.approx(exact, abs=1)
    assert 'slow is predicted to overtake fast' in found['text'] and 'prediction' in found['text']
    swapped = crossover('slow', saturating(0.6, 20.0), 'fast', saturating(0.3, 3.0))
    assert swapped['epoch'] == found['epoch']


def test_no_crossing_is_predicted_for_curves_that_keep_their_order():
    found = crossover('good', saturating(0.6, 5.0), 'bad', saturating(0.3, 5.0))
    assert found['epoch'] is None and 'bad is not predicted to overtake good within 10 times' in found['text']


def test_nothing_is_predicted_from_too_little():
    assert crossover('a', saturating(0.3, 3.0, epochs=3), 'b', saturating(0.6, 20.0)) is None
    flat = [(epoch, 0.0) for epoch in range(1, 11)]
    found = crossover('a', flat, 'b', saturating(0.6, 20.0))
    assert found['epoch'] is None and 'No prediction' in found['text']
