"""Precision against recall, confidence against precision, and the score from which a model's detections are best taken."""

from collections.abc import Sequence

import numpy as np

from .average_precision import RECALLS, precision_at_recalls
from .matches import ALL, AT_50, AT_75, HIT, IGNORED, Matches

CURVES = {'0.5': AT_50, '0.75': AT_75}


def precision_recall(runs: Sequence[Matches]) -> dict:
    """COCO's precision at 101 recall points, mean over the classes that have objects and over the runs.

    Returns:
        ``recall``: 101 values; ``precision``: IoU threshold -> 101 values, None where there is no object at all. Their mean is AP50, AP75.
    """
    curves = {name: [curve for run in runs for curve in _class_curves(run, thresholds)] for name, thresholds in CURVES.items()}
    precision = {name: np.mean(found, axis=0).tolist() if found else None for name, found in curves.items()}
    return dict(recall=RECALLS.tolist(), precision=precision)


def _class_curves(run: Matches, thresholds: slice) -> list[np.ndarray]:
    curves = []
    for index, objects in enumerate(run.num_objects):
        outcomes = run.outcomes[ALL, thresholds, run.of_class(index)][0]
        if objects:
            curves.append(precision_at_recalls(outcomes[outcomes != IGNORED] == HIT, objects))
    return curves


def calibration(runs: Sequence[Matches], bins: int = 10) -> dict:
    """How often detections of a score are right (their class, IoU at least 0.5, first at their object); all runs' detections together.

    Returns:
        ``bins``: ``lower``, ``upper``, ``count``, ``confidence`` (mean score) and ``precision``, None where the bin is empty; a bin holds
        its lower end, the last one both. ``expected_error``: expected calibration error (Naeini et al. 2015), the distance of confidence
        and precision, mean over the detections; None without any.
    """
    scores, hits = _judged(runs)
    edges = np.arange(bins + 1) / bins  # exact where a score can be: linspace has 0.30000000000000004
    place = np.clip(np.searchsorted(edges, scores, side='right') - 1, 0, bins - 1)
    counts, sums, right = (np.bincount(place, weights=values, minlength=bins) for values in (np.ones(len(place)), scores, hits))
    means = [(sums[i] / counts[i], right[i] / counts[i]) if counts[i] else (None, None) for i in range(bins)]
    rows = [
        dict(lower=float(edges[i]), upper=float(edges[i + 1]), count=int(counts[i]), confidence=confidence, precision=precision)
        for i, (confidence, precision) in enumerate(means)
    ]
    return dict(bins=rows, expected_error=float(np.abs(sums - right).sum() / len(scores)) if len(scores) else None)


def operating_point(runs: Sequence[Matches]) -> dict[str, float | None]:
    """The score threshold with the best F1 at IoU 0.5 over all classes and runs together; of equally good ones the highest.

    Returns:
        ``score_thr`` (detections of at least this score are taken; 1 without detections), ``precision`` (None without detections),
        ``recall`` and ``f1`` (None without objects).
    """
    scores, hits = _judged(runs)
    objects = sum(int(run.num_objects.sum()) for run in runs)
    if not len(scores):
        return dict(score_thr=1.0, precision=None, recall=0.0 if objects else None, f1=0.0 if objects else None)
    order = np.argsort(-scores)
    scores, found = scores[order], np.cumsum(hits[order])
    taken = np.arange(1, len(scores) + 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal scores are taken together
    best = last[np.argmax(2 * found[last] / (taken[last] + objects))]
    precision, f1 = found[best] / taken[best], 2 * found[best] / (taken[best] + objects)
    return dict(
        score_thr=float(scores[best]),
        precision=float(precision),
        recall=float(found[best] / objects) if objects else None,
        f1=float(f1) if objects else None,
    )


def _judged(runs: Sequence[Matches]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the detections that are not ignored, and whether they are hits at IoU 0.5."""
    outcomes = np.concatenate([run.outcomes[ALL, 0] for run in runs])
    scores = np.concatenate([run.scores for run in runs])
    return scores[outcomes != IGNORED], outcomes[outcomes != IGNORED] == HIT
