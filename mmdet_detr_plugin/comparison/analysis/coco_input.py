"""Annotations and detections in COCO's format, checked and as arrays."""

import contextlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def quiet():
    """A context in which pycocotools does not print its progress."""
    return contextlib.redirect_stdout(io.StringIO())


@dataclass(frozen=True, eq=False)
class Boxes:
    """Objects or detections of all images: N boxes.

    Attributes:
        images: (N,) index among the images.
        classes: (N,) index among the categories.
        boxes_xywh_abs: (N, 4), pixels.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes_xywh_abs: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Annotations:
    """An annotation file; images and categories in order of their ids.

    Attributes:
        image_ids: (I,), numbers or texts.
        category_ids: (K,), numbers or texts.
        class_names: of the K categories.
        objects: G boxes, crowds among them.
        areas: (G,) in square pixels, of the mask where the file says so.
        crowds: (G,) bool, regions in which detections are not judged.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    class_names: tuple[str, ...]
    objects: Boxes
    areas: np.ndarray
    crowds: np.ndarray

    def is_same(self, other: 'Annotations') -> bool:
        """Whether results on both can be compared image by image."""
        pairs = [(self.image_ids, other.image_ids), (self.category_ids, other.category_ids), (self.crowds, other.crowds)]
        pairs += [(getattr(self.objects, name), getattr(other.objects, name)) for name in ('images', 'classes', 'boxes_xywh_abs')]
        return self is other or all(np.array_equal(*pair) for pair in pairs)


def read_annotations(source: Path | str | Mapping, category_ids: Collection[int] | None = None) -> Annotations:
    """An annotation file, or its content.

    Args:
        category_ids: the categories that detectors were made for; others, which they cannot find, are left out. None: all.

    Raises:
        ValueError: when an annotation names an image or a category that the file does not list.
    """
    content = source if isinstance(source, Mapping) else json.loads(Path(source).read_text())
    image_ids = _sorted_ids([image['id'] for image in content['images']])
    names = {category['id']: category['name'] for category in content['categories']}
    items = content.get('annotations', [])
    if category_ids is not None:
        items = [item for item in items if item['category_id'] in category_ids or item['category_id'] not in names]
        names = {number: name for number, name in names.items() if number in category_ids}
    category_ids = _sorted_ids(list(names))
    objects = _boxes('annotation', items, image_ids, category_ids)
    sizes = objects.boxes_xywh_abs[:, 2] * objects.boxes_xywh_abs[:, 3]
    return Annotations(
        image_ids=image_ids,
        category_ids=category_ids,
        class_names=tuple(names[number] for number in category_ids.tolist()),
        objects=objects,
        areas=np.array([item.get('area', size) for item, size in zip(items, sizes.tolist())], dtype=float),
        crowds=np.array([item.get('iscrowd', 0) for item in items], dtype=bool),
    )


def read_detections(detections: Sequence[Mapping], annotations: Annotations) -> tuple[Boxes, np.ndarray]:
    """Boxes and (N,) scores of ``image_id, category_id, bbox (xywh), score``, which may be none at all.

    Raises:
        ValueError: when a detection is of an unknown image or category, or has a score outside of [0, 1] or a box that is no number.
    """
    boxes = _boxes('detection', detections, annotations.image_ids, annotations.category_ids)
    scores = np.array([item['score'] for item in detections], dtype=float)
    wrong = ~((scores >= 0) & (scores <= 1) & np.isfinite(boxes.boxes_xywh_abs).all(1))
    if wrong.any():
        first = detections[int(wrong.argmax())]
        raise ValueError(f'expected scores in [0, 1] and finite boxes, got {dict(first)}; has the training diverged?')
    return boxes, scores


def _boxes(kind: str, items: Sequence[Mapping], image_ids: np.ndarray, category_ids: np.ndarray) -> Boxes:
    images = _indices(kind, 'image_id', items, image_ids)
    classes = _indices(kind, 'category_id', items, category_ids)
    return Boxes(images, classes, np.array([item['bbox'] for item in items], dtype=float).reshape(-1, 4))


def _sorted_ids(ids: list[int] | list[str]) -> np.ndarray:
    """Numbers, or texts, of which some files' ids are."""
    return np.unique(ids) if ids and isinstance(ids[0], str) else np.unique(ids).astype(np.int64)


def _indices(kind: str, key: str, items: Sequence[Mapping], known: np.ndarray) -> np.ndarray:
    """(N,) int32 position of each item's id among the known ones, which are sorted."""
    values = np.array([item[key] for item in items], dtype=known.dtype if known.dtype.kind == 'i' else str)
    unknown = ~np.isin(values, known)
    if unknown.any():
        raise ValueError(
            f'a {kind} has {key} {values[unknown.argmax()]}, which the annotation file does not list ({len(known)} are listed); '
            'use the annotation file of the same images and classes'
        )
    return np.searchsorted(known, values).astype(np.int32)
