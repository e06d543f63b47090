"""Images that show how models differ, chosen by rule."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .matches import ALL, FALSE, HIT, Matches

RIGHT = 'Right: every object found once (its class, IoU at least 0.5) at the score of the best F1, and nothing else claimed'


@dataclass(frozen=True)
class ExampleGroup:
    """Images of one kind.

    Attributes:
        group: 'only MODEL right', 'all right' or 'all wrong' ('both ...' of two models).
        rule: what is in the group, and in which order.
        image_ids: ids of the annotation file, first the one that shows it best.
    """

    group: str
    rule: str
    image_ids: list[int]


def choose_examples(runs: Mapping[str, Matches], score_thrs: Mapping[str, float], most: int = 4) -> list[ExampleGroup]:
    """At most ``most`` images for every group; a group may be empty.

    Args:
        runs: model -> one of its runs.
        score_thrs: model -> its operating point.

    Raises:
        ValueError: for fewer than two models, or models of other images.
    """
    names = list(runs)
    if len(names) < 2 or not all(run.annotations.is_same(runs[names[0]].annotations) for run in runs.values()):
        raise ValueError(f'expected two or more models on the same images, got {names}; match all with the same annotation file')
    image_ids = runs[names[0]].annotations.image_ids
    f1 = np.stack([image_f1(runs[name], score_thrs[name]) for name in names])  # (models, I)
    right = f1 == 1.0
    objects = _per_image(runs[names[0]].annotations.objects.images[runs[names[0]].counted_objects[ALL]], len(image_ids))
    every = 'both' if len(names) == 2 else 'all'
    groups = []
    for index, name in enumerate(names):
        others = np.delete(np.arange(len(names)), index)
        lead = f1[index] - f1[others].mean(0)
        rule = f'{RIGHT}. Largest lead in F1 over the mean of the others first, then smallest id.'
        groups.append(_group(f'only {name} right', rule, right[index] & ~right[others].any(0), -lead, image_ids, most))
    rule = f'{RIGHT}. Most objects first, then smallest id.'
    groups.append(_group(f'{every} right', rule, right.all(0), -objects, image_ids, most))
    rule = f'{RIGHT}. Lowest mean F1 first, then most objects, then smallest id.'
    groups.append(_group(f'{every} wrong', rule, ~right.any(0), f1.mean(0), image_ids, most, -objects))
    return groups


def image_f1(run: Matches, score_thr: float) -> np.ndarray:
    """(I,) F1 of each image at IoU 0.5 among detections of at least ``score_thr``; 1 where nothing is there and nothing is claimed.

    Detections in crowds are not judged. Exactly 1 is what ``choose_examples`` calls right.
    """
    taken, outcomes = run.scores >= score_thr, run.outcomes[ALL, 0]
    hits, false = (_per_image(run.detections.images[taken & (outcomes == kind)], run.num_images) for kind in (HIT, FALSE))
    objects = _per_image(run.annotations.objects.images[run.counted_objects[ALL]], run.num_images)
    total = hits + false + objects
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def _per_image(images: np.ndarray, num_images: int) -> np.ndarray:
    return np.bincount(images, minlength=num_images)


def _group(
    group: str, rule: str, chosen: np.ndarray, first: np.ndarray, image_ids: np.ndarray, most: int, second: np.ndarray | None = None
) -> ExampleGroup:
    second = np.zeros(len(image_ids)) if second is None else second
    order = np.lexsort((image_ids, second, first.round(9)))  # rounded: equal F1s are equal, however they were summed
    return ExampleGroup(group, rule, image_ids[[index for index in order if chosen[index]][:most]].tolist())
