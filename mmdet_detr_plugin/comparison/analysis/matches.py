"""Which detections find which objects, by pycocotools, kept so that AP can be computed again for images of other weights without matching.

Letters: I images, K classes, G objects, D detections that are judged (as COCO's: the best 100 of each image and class), A area ranges, T
IoU thresholds, R weightings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .average_precision import RECALLS, precision_steps
from .coco_input import Annotations, Boxes, quiet, read_annotations, read_detections

METRICS = ('AP', 'AP50', 'AP75', 'AP S', 'AP M', 'AP L')
FALSE, HIT, IGNORED = 0, 1, 2  # outcomes of a detection; ignored: it lies in a crowd, or has another size than is asked for
ALL, SMALL, MEDIUM, LARGE = range(4)
AT_50, AT_75, AT_ANY = slice(0, 1), slice(5, 6), slice(0, 10)  # of the thresholds 0.5, 0.55, ... 0.95
PARTS = dict(zip(METRICS, [(ALL, AT_ANY), (ALL, AT_50), (ALL, AT_75), (SMALL, AT_ANY), (MEDIUM, AT_ANY), (LARGE, AT_ANY)], strict=True))
MOST_DETECTIONS = 100


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one trained model; sorted by class, within a class by falling score, equal scores by image as pycocotools does.

    Attributes:
        annotations: what was to be found.
        detections: D boxes.
        scores: (D,) in [0, 1].
        outcomes: (A, T, D) int8: ``FALSE``, ``HIT`` or ``IGNORED``.
        matched_objects: (D,) index of the object, or crowd, that a detection is matched with at IoU 0.5; -1 for none.
        overlaps: (D,) the largest IoU with an object (no crowd) of the detection's class; 0 for none.
    """

    annotations: Annotations
    detections: Boxes
    scores: np.ndarray
    outcomes: np.ndarray
    matched_objects: np.ndarray
    overlaps: np.ndarray

    @property
    def num_images(self) -> int:
        return len(self.annotations.image_ids)

    @cached_property
    def counted_objects(self) -> np.ndarray:
        """(A, G) whether an object of that area range must be found; crowds never."""
        areas = self.annotations.areas
        inside = [(low <= areas) & (areas <= high) for low, high in COCOeval(iouType='bbox').params.areaRng]
        return np.stack(inside) & ~self.annotations.crowds

    @property
    def num_objects(self) -> np.ndarray:
        """(K,) objects of each class, without crowds."""
        return np.bincount(self.annotations.objects.classes[self.counted_objects[ALL]], minlength=len(self.annotations.category_ids))

    def of_class(self, index: int) -> slice:
        """Where the detections of a class are."""
        return slice(*np.searchsorted(self.detections.classes, [index, index + 1]))

    def metrics(self) -> dict[str, float | None]:
        """COCO's six figures in [0, 1]; None where no object of that size exists (pycocotools says -1)."""
        values = {name: float(self.metric(name)[0]) for name in METRICS}
        return {name: None if np.isnan(value) else value for name, value in values.items()}

    def metric(self, name: str, weights: np.ndarray | None = None) -> np.ndarray:
        """One of COCO's figures over images that count several times or not at all.

        Args:
            name: one of ``METRICS``.
            weights: (I, R) how often each image counts, non-negative integers; once if None.

        Returns:
            (R,), each as if the images were repeated in the annotation file (up to the order of equal scores inside an image); NaN where no
            object is left.

        Raises:
            ValueError: for an unknown figure or weights of other images.
        """
        values = self.class_metric(name, weights)
        known = ~np.isnan(values)
        number = known.sum(0)
        return np.where(number > 0, np.where(known, values, 0.0).sum(0) / np.maximum(number, 1), np.nan)

    def class_metric(self, name: str, weights: np.ndarray | None = None) -> np.ndarray:
        """(K, R), as ``metric`` for each class by itself."""
        if name not in PARTS:
            raise ValueError(f'expected one of {", ".join(METRICS)}, got {name!r}')
        weights = np.ones((self.num_images, 1), dtype=np.int32) if weights is None else np.asarray(weights)
        if weights.ndim != 2 or len(weights) != self.num_images or weights.dtype.kind not in 'ui':
            raise ValueError(
                f'expected integer weights of shape ({self.num_images}, weightings), got {weights.dtype} of shape {weights.shape}; '
                'give a row for each image of the annotation file'
            )
        area, thresholds = PARTS[name]
        values = [self._weighted(index, area, thresholds, weights) for index in range(len(self.annotations.category_ids))]
        return np.array(values).reshape(-1, weights.shape[1])  # also without any class

    def _weighted(self, index: int, area: int, thresholds: slice, weights: np.ndarray) -> np.ndarray:
        """(R,) AP of one class."""
        objects, found = self.annotations.objects, self.of_class(index)
        counted = self.counted_objects[area] & (objects.classes == index)
        num_objects = weights[objects.images[counted]].sum(0, dtype=np.int64)
        outcomes = self.outcomes[area, thresholds, found]  # (T, D of the class)
        judged = int(np.flatnonzero((outcomes == HIT).any(0)).max(initial=-1)) + 1  # after the last hit nothing changes AP
        weights = weights[self.detections.images[found][:judged]]  # (judged, R)
        passed = np.cumsum(weights, axis=0, dtype=np.int32)
        total = np.zeros(weights.shape[1])
        for outcome in outcomes[:, :judged]:
            positions, left_out = np.flatnonzero(outcome == HIT), np.flatnonzero(outcome == IGNORED)
            seen = passed[positions]
            if len(left_out):  # few, so it is cheaper to take them off than to sum again without them
                ignored = np.cumsum(weights[left_out], axis=0, dtype=np.int32)
                before = np.searchsorted(left_out, positions)
                seen = seen - np.where(before[:, None] > 0, ignored[before - 1], 0)
            hits = np.cumsum(weights[positions], axis=0, dtype=np.int32)
            precision, points = precision_steps(hits, seen, np.maximum(num_objects, 1))
            total += np.einsum('hr,hr->r', precision, points)
        return np.where(num_objects > 0, total / (len(outcomes) * len(RECALLS)), np.nan)


def match(annotations: Path | str | Mapping | Annotations, detections: Sequence[Mapping]) -> Matches:
    """Match once, at all of COCO's thresholds and area ranges.

    Args:
        annotations: COCO JSON, its content, or what ``read_annotations`` made of it (read once for many models).
        detections: ``image_id, category_id, bbox (xywh, pixels), score``; there may be none.

    Raises:
        ValueError: when annotations and detections do not belong together, or a score or box is no number.
    """
    truth = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
    boxes, scores = read_detections(detections, truth)
    parts = [_match_class(index, truth, boxes, scores) for index in range(len(truth.category_ids))]
    order = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int64)])
    return Matches(
        annotations=truth,
        detections=Boxes(boxes.images[order], boxes.classes[order], boxes.boxes_xywh_abs[order]),
        scores=scores[order],
        outcomes=np.concatenate([_no_outcomes()] + [part[1] for part in parts], axis=2),
        matched_objects=np.concatenate([np.zeros(0, np.int64)] + [part[2] for part in parts]),
        overlaps=np.concatenate([np.zeros(0)] + [part[3] for part in parts]),
    )


def _no_outcomes() -> np.ndarray:
    return np.zeros((4, 10, 0), np.int8)


def _match_class(index: int, truth: Annotations, boxes: Boxes, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of a class's detections in order, with their outcomes, matched objects and overlaps.

    By class, because what pycocotools holds at a time is then small. Ids are given anew, from 1: it takes an object of id 0 for no match.
    """
    own_objects, own_detections = np.flatnonzero(truth.objects.classes == index), np.flatnonzero(boxes.classes == index)
    images = np.union1d(truth.objects.images[own_objects], boxes.images[own_detections]).tolist()
    if not len(own_detections):
        return own_detections, _no_outcomes(), own_detections, np.zeros(0)
    with quiet():
        evaluator = COCOeval(
            _as_coco(images, truth.objects, own_objects, truth.areas, truth.crowds),
            _as_coco(images, boxes, own_detections, boxes.boxes_xywh_abs[:, 2] * boxes.boxes_xywh_abs[:, 3], scores=scores),
            'bbox',
        )
        evaluator.params.maxDets = [MOST_DETECTIONS]
        evaluator.evaluate()
    results = np.array(evaluator.evalImgs, dtype=object).reshape(4, len(images))  # in the order of area ranges, images
    outcomes = [np.concatenate([_outcomes(item) for item in row], axis=1) for row in results]
    kept = np.concatenate([np.array(item['dtIds'], dtype=np.int64) for item in results[ALL]]) - 1
    matched = np.concatenate([item['dtMatches'][0] for item in results[ALL]]).astype(np.int64) - 1
    overlaps = np.concatenate([_overlaps(evaluator.ious[item['image_id'], 1], item, truth.crowds) for item in results[ALL]])
    order = np.argsort(-scores[kept], kind='stable')
    return kept[order], np.stack(outcomes)[:, :, order], matched[order], overlaps[order]


def _as_coco(
    images: list[int],
    boxes: Boxes,
    chosen: np.ndarray,
    areas: np.ndarray,
    crowds: np.ndarray | None = None,
    scores: np.ndarray | None = None,
) -> COCO:
    """Some boxes for pycocotools, which itself refuses to load none; id is the index + 1, the category 1."""
    annotations = [
        dict(id=index + 1, image_id=image, category_id=1, bbox=box, area=area, iscrowd=0)
        for index, image, box, area in zip(
            chosen.tolist(), boxes.images[chosen].tolist(), boxes.boxes_xywh_abs[chosen].tolist(), areas[chosen].tolist()
        )
    ]
    for index, annotation in zip(chosen, annotations):
        if crowds is not None:
            annotation['iscrowd'] = int(crowds[index])
        if scores is not None:
            annotation['score'] = float(scores[index])
    coco = COCO()
    coco.dataset = dict(images=[dict(id=image) for image in images], categories=[dict(id=1)], annotations=annotations)
    coco.createIndex()
    return coco


def _outcomes(item: dict) -> np.ndarray:
    """(T, D of the image)"""
    return np.where(item['dtIgnore'], IGNORED, np.where(item['dtMatches'] > 0, HIT, FALSE)).astype(np.int8)


def _overlaps(ious: np.ndarray | list, item: dict, crowds: np.ndarray) -> np.ndarray:
    """(D of the image,) largest IoU with an object that is no crowd; the columns of ``ious`` are in the order of ids."""
    if not len(ious):
        return np.zeros(len(item['dtIds']))
    return np.where(crowds[np.sort(item['gtIds']) - 1], 0.0, ious).max(1, initial=0.0)
