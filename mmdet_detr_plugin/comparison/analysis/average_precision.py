"""COCO's average precision, for many weightings of the same images at once.

As pycocotools' ``COCOeval.accumulate``: precision made monotone, then read at 101 recall points. Only true positives are looked at, because
precision falls and recall stays at every detection between them. Letters: H true positives, R weightings.
"""

import numpy as np

RECALLS = np.linspace(0.0, 1.0, 101)


def precision_steps(hits: np.ndarray, seen: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision as a staircase over the recall points.

    Args:
        hits: (H, R) true positives so far, at each true positive in order of falling score.
        seen: (H, R) detections so far that count, there.
        objects: (R,) at least 1.

    Returns:
        (H, R) precision, never rising; and (H, R) the number of recall points that take it. The others have precision 0.
    """
    precision = hits / (seen + np.spacing(1))  # as pycocotools, to the last digit; 0 where all weights are 0
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, hits / objects, side='right')
    return precision, np.diff(reached, axis=0, prepend=0)


def precision_at_recalls(is_hit: np.ndarray, objects: int) -> np.ndarray:
    """(101,) precision at ``RECALLS``.

    Args:
        is_hit: (D,) whether each detection that counts is a true positive, in order of falling score.
        objects: at least 1.
    """
    positions = np.flatnonzero(is_hit)
    hits, seen = np.arange(1, len(positions) + 1)[:, None], positions[:, None] + 1
    precision, points = precision_steps(hits, seen, np.array([objects]))
    curve = np.repeat(precision[:, 0], points[:, 0])
    return np.pad(curve, (0, len(RECALLS) - len(curve)))
