"""A panoptic data set of one image, written to disk."""

import json
from pathlib import Path

import cv2
import numpy as np

from mmdet_detr_plugin.datasets.panoptic.segment_ids import encode_png

THINGS, STUFF = ('cat', 'dog'), ('grass', 'sky')
CLASSES = THINGS + STUFF
CATEGORIES = [dict(id=number + 10, name=name, isthing=int(name in THINGS)) for number, name in enumerate(CLASSES)]


def ids_of(text: str) -> np.ndarray:
    """A map of ids from rows of numbers."""
    return np.array([[int(number) for number in row.split()] for row in text.strip().splitlines()])


def segment(number: int, name: str, ids: np.ndarray, iscrowd: int = 0) -> dict:
    """An entry of ``segments_info``."""
    mask = (ids == number).astype(np.uint8)
    box = list(cv2.boundingRect(mask))
    return dict(id=number, category_id=CLASSES.index(name) + 10, iscrowd=iscrowd, bbox=box, area=int(mask.sum()))


def write_dataset(root: Path, maps: list[np.ndarray], segments: list[list[dict]], **changes) -> Path:
    """``panoptic.json``, ``segments/s{i}.png`` and ``images/i{i}.png`` below ``root``; ``changes`` replace entries of the JSON."""
    (root / 'images').mkdir(parents=True, exist_ok=True)
    (root / 'segments').mkdir(exist_ok=True)
    images, annotations = [], []
    for number, (ids, infos) in enumerate(zip(maps, segments, strict=True), start=1):
        (root / 'segments' / f's{number}.png').write_bytes(encode_png(ids))
        cv2.imwrite(str(root / 'images' / f'i{number}.png'), np.zeros((*ids.shape, 3), np.uint8))
        images.append(dict(id=number, file_name=f'i{number}.png', height=ids.shape[0], width=ids.shape[1]))
        annotations.append(dict(image_id=number, file_name=f's{number}.png', segments_info=infos))
    content = dict(images=images, annotations=annotations, categories=CATEGORIES) | changes
    (root / 'panoptic.json').write_text(json.dumps(content))
    return root
