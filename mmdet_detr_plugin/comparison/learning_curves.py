"""Learning curves of several trainings: how fast a model gets there, and where curves may cross."""

import statistics
from collections.abc import Sequence

import numpy as np
from scipy.optimize import curve_fit

FARTHEST = 10.0  # a crossing is not predicted beyond so many times what was trained
FEWEST_POINTS = 4


def mean_curve(curves: Sequence[Sequence[dict]]) -> list[tuple[float, float]]:
    """(epoch, mean AP) at the epochs that every training has evaluated, but for trainings that were never evaluated.

    Args:
        curves: of each training, dicts with ``epoch`` and ``AP``, which is None where it is not known.
    """
    curves = [curve for curve in curves if any(point['AP'] is not None for point in curve)]
    by_epoch: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in {point['epoch']: point['AP'] for point in curve}.items():
            if value is not None:
                by_epoch.setdefault(epoch, []).append(value)
    return [(epoch, statistics.mean(values)) for epoch, values in sorted(by_epoch.items()) if len(values) == len(curves)]


def epochs_to(curve: Sequence[tuple[float, float]], shares: Sequence[int] = (50, 90)) -> dict[str, float | None]:
    """The first evaluated epoch with so many percent of the curve's best AP; None where the best is 0."""
    best = max((value for _, value in curve), default=0.0)
    return {
        str(share): next((epoch for epoch, value in curve if value >= share / 100 * best), None) if best > 0 else None for share in shares
    }


def crossover(name_a: str, a: Sequence[tuple[float, float]], name_b: str, b: Sequence[tuple[float, float]]) -> dict | None:
    """Where the model that is behind at the end would overtake, if both curves went on as a saturating exponential.

    A prediction from few points of one schedule: a longer schedule drops its rate later, which no curve of a shorter one knows.

    Returns:
        ``a, b, epoch`` (None: not before ``FARTHEST`` times the epochs trained) and ``text``; None with too few points.
    """
    if min(len(a), len(b)) < FEWEST_POINTS:
        return None
    end = min(a[-1][0], b[-1][0])
    (behind, ahead) = ((name_a, a), (name_b, b)) if a[-1][1] < b[-1][1] else ((name_b, b), (name_a, a))
    fits = [_saturating(curve) for _, curve in (behind, ahead)]
    entry = dict(a=name_a, b=name_b, epoch=None)
    if any(fit is None for fit in fits):
        return {**entry, 'text': f'No prediction for {name_a} and {name_b}: a curve does not look like one that saturates.'}
    epochs = np.linspace(end, FARTHEST * end, 2000)
    crossed = np.flatnonzero(fits[0](epochs) > fits[1](epochs))
    caution = 'A prediction from these curves alone; a longer schedule may change it.'
    if not len(crossed):
        text = f'{behind[0]} is not predicted to overtake {ahead[0]} within {FARTHEST:.0f} times the epochs trained. {caution}'
        return {**entry, 'text': text}
    epoch = float(epochs[crossed[0]])
    return {
        **entry,
        'epoch': round(epoch),
        'text': f'{behind[0]} is predicted to overtake {ahead[0]} at about epoch {epoch:.0f}. {caution}',
    }


def _saturating(curve: Sequence[tuple[float, float]]):
    """limit * (1 - exp(-(epoch - delay) / pace)), fitted; None where nothing was learned or the fit does not converge."""
    epochs, values = np.array(curve, dtype=float).T
    if values.max() <= 0.005:
        return None

    def model(epoch, limit, pace, delay):
        return limit * (1 - np.exp(-np.maximum(epoch - delay, 0.0) / pace))

    start = (min(values.max() * 1.1, 1.0), epochs[-1] / 2, 0.0)
    bounds = ((0.0, epochs[0] / 10, 0.0), (1.0, 10 * epochs[-1], epochs[-1]))
    try:
        found, _ = curve_fit(model, epochs, values, p0=np.clip(start, *bounds), bounds=bounds, maxfev=20000)
    except RuntimeError:
        return None
    return lambda epoch: model(epoch, *found)
