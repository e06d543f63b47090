"""What a model's errors cost: TIDE's error types.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2. Every false positive at IoU 0.5 has one
type; a type costs what AP50 gains when an oracle mends that type alone. Where the paper leaves it open, this does as the authors' program
tidecv 1.0.1: of several types that fit, the first of localisation, classification, duplicate, background, both; and an error aimed at an
object that is found already just goes. Deliberate differences from the program:

- AP50 is pycocotools': classes without objects do not count, and 100 detections of an image *and class* are judged.
- Detections in crowds are ignored, so they are no errors.
- Of several errors aimed at the same object the oracle keeps the best *of its type*; in the program one of another type, which stays a
  false positive, can stand in its way.
- A class whose objects are all taken away has AP 1 if nothing is claimed any more, else 0; the program drops it, and fails if it is the
  only one.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api

from .average_precision import precision_at_recalls
from .matches import ALL, FALSE, HIT, IGNORED, Matches

FOREGROUND, BACKGROUND = 0.5, 0.1  # the paper's t_f and t_b
TYPES = ('localisation', 'classification', 'duplicate', 'background', 'both')  # of false positives, in order of precedence
NAMES = ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed', 'false_positive', 'false_negative')


def error_types(runs: Sequence[Matches]) -> dict[str, float | None]:
    """dAP50 in [0, 1] of each of ``NAMES``, mean over the runs; None where there is no object.

    ``missed`` and ``false_negative`` take objects away instead of finding them; ``false_positive`` takes every false positive away.
    """
    gains = [_Oracle(run).gains() for run in runs]
    return {name: None if gains[0][name] is None else float(np.mean([gain[name] for gain in gains])) for name in NAMES}


def false_positive_types(run: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Type and aim of each detection.

    Returns:
        (D,) index among ``TYPES``, -1 for what is no false positive; and (D,) index of the object that a localisation or classification
        error is aimed at, the one with the largest IoU; -1 for others and where that object is found already.
    """
    kinds, aims = np.full(len(run.scores), -1), np.full(len(run.scores), -1)
    objects, detections = run.annotations.objects, run.detections
    is_false, is_object = run.outcomes[ALL, 0] == FALSE, run.counted_objects[ALL]
    by_image = _by_image(objects.images, is_object, run.num_images)
    for found, there in zip(_by_image(detections.images, is_false, run.num_images), by_image):
        if not len(found):
            continue
        if not len(there):
            kinds[found] = TYPES.index('background')
            continue
        ious = mask_api.iou(detections.boxes_xywh_abs[found], objects.boxes_xywh_abs[there], [0] * len(there))
        same = detections.classes[found][:, None] == objects.classes[there]
        kinds[found], aims[found] = _types(np.where(same, ious, 0.0), np.where(same, 0.0, ious), there)
    taken = np.zeros(len(objects) + 1, dtype=bool)  # the last for -1
    taken[run.matched_objects[run.outcomes[ALL, 0] == HIT]] = True
    aims[taken[aims]] = -1
    return kinds, aims


def _by_image(images: np.ndarray, chosen: np.ndarray, num_images: int) -> list[np.ndarray]:
    """For each image the indices of those that are chosen."""
    indices = np.flatnonzero(chosen)
    indices = indices[np.argsort(images[indices], kind='stable')]
    return np.split(indices, np.searchsorted(images[indices], np.arange(1, num_images))) if num_images else []


def _types(own: np.ndarray, other: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From IoUs with objects of the same and of other classes: (detections, objects)."""
    own_best, other_best = own.max(1), other.max(1)
    fits = dict(
        localisation=(own_best >= BACKGROUND) & (own_best < FOREGROUND),
        classification=other_best >= FOREGROUND,
        duplicate=own_best >= FOREGROUND,
        background=np.maximum(own_best, other_best) < BACKGROUND,
        both=np.ones(len(own), dtype=bool),
    )
    kinds = np.stack([fits[name] for name in TYPES]).argmax(0)
    aims = np.select([kinds == TYPES.index('localisation'), kinds == TYPES.index('classification')], [own.argmax(1), other.argmax(1)], -1)
    return kinds, np.where(aims >= 0, there[aims], -1)


class _Oracle:
    """AP50 of one run, and what it were with some of the errors mended."""

    def __init__(self, run: Matches) -> None:
        self.run = run
        self.kinds, self.aims = false_positive_types(run)
        self.is_hit = run.outcomes[ALL, 0] == HIT
        self.counts = run.outcomes[ALL, 0] != IGNORED

    def gains(self) -> dict[str, float | None]:
        run, objects = self.run, self.run.num_objects
        if not objects.sum():
            return dict.fromkeys(NAMES)
        base = self._mean_ap(self.counts, self.is_hit, run.detections.classes, objects)
        gains = {name: self._mended(index) - base for index, name in enumerate(TYPES)}
        found = np.zeros(len(run.annotations.objects), dtype=bool)
        found[run.matched_objects[self.is_hit]] = True
        claimed = found.copy()
        claimed[self.aims[self.aims >= 0]] = True
        gains['missed'] = self._mean_ap(self.counts, self.is_hit, run.detections.classes, self._count(claimed)) - base
        gains['false_positive'] = self._mean_ap(self.is_hit, self.is_hit, run.detections.classes, objects) - base
        gains['false_negative'] = self._mean_ap(self.counts, self.is_hit, run.detections.classes, self._count(found)) - base
        return gains

    def _count(self, chosen: np.ndarray) -> np.ndarray:
        """(K,) chosen objects of each class."""
        return np.bincount(self.run.annotations.objects.classes[chosen], minlength=len(self.run.num_objects))

    def _mended(self, kind: int) -> float:
        """AP50 when the best error of this type at each object becomes its detection, and the others of this type go."""
        errors = np.flatnonzero(self.kinds == kind)
        errors = errors[np.argsort(-self.run.scores[errors], kind='stable')]
        aimed = errors[self.aims[errors] >= 0]
        mended = aimed[np.unique(self.aims[aimed], return_index=True)[1]]  # the first at each object
        counts, is_hit, classes = self.counts.copy(), self.is_hit.copy(), self.run.detections.classes.copy()
        counts[errors], counts[mended], is_hit[mended] = False, True, True
        classes[mended] = self.run.annotations.objects.classes[self.aims[mended]]
        return self._mean_ap(counts, is_hit, classes, self.run.num_objects)

    def _mean_ap(self, counts: np.ndarray, is_hit: np.ndarray, classes: np.ndarray, objects: np.ndarray) -> float:
        """Over the classes that have objects before any is taken away."""
        order = np.argsort(-self.run.scores, kind='stable')
        order = order[counts[order]]
        values = []
        for index in np.flatnonzero(self.run.num_objects):
            own = order[classes[order] == index]
            values.append(precision_at_recalls(is_hit[own], objects[index]).mean() if objects[index] else float(not len(own)))
        return float(np.mean(values))
