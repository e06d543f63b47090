"""A synthetic detection data set, generated: textured backgrounds, clutter, overlapping shapes of four classes.

Deterministic: an image depends on (seed, split, index, size) alone. Written as PNG, COCO JSON with masks, and COCO panoptic ground truth.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..files import write_json
from .panoptic.segment_ids import encode_png

CLASSES = ('circle', 'square', 'triangle', 'star')
STUFF_CLASSES = ('noise', 'stripes', 'gradient')
MIN_SIZE, MAX_SIZE = 12, 80  # pixels at 128 x 128, the larger side of an object
MAX_OBJECTS = 8
EMPTY_FRACTION = 0.05
MIN_VISIBLE = 0.5  # of an object's own area, after all overlaps
SPLITS = ('train', 'test')
MARKER = '.generated_shapes'


@dataclass
class Scene:
    """One generated image.

    Attributes:
        image: (S, S, 3), uint8, BGR.
        labels: class index of each object.
        masks: (T, S, S), bool, visible pixels of each object.
        stuff: (S, S), index into ``STUFF_CLASSES`` of the background; -1 under clutter and objects.
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray
    stuff: np.ndarray

    def boxes_xywh(self) -> list[list[int]]:
        """Tight boxes of the visible pixels."""
        boxes = []
        for mask in self.masks:
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            boxes.append([x, y, w, h])
        return boxes


def draw_scene(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw one image of ``size`` x ``size`` pixels; object sizes scale with it."""
    image, stuff = _background(rng, size)
    _clutter(rng, image, stuff)
    count = 0 if rng.random() < EMPTY_FRACTION else int(rng.integers(1, MAX_OBJECTS + 1))
    owner = np.full((size, size), -1)
    labels, areas = [], []
    attempts = 0
    while len(labels) < count and attempts < 20 * count:
        attempts += 1
        label = int(rng.integers(len(CLASSES)))
        mask = _shape_mask(rng, label, size)
        covered = np.bincount(owner[mask & (owner >= 0)], minlength=len(labels))
        visible = np.bincount(owner[owner >= 0], minlength=len(labels)) - covered
        if any(visible[i] < MIN_VISIBLE * areas[i] for i in range(len(labels))):
            continue
        owner[mask] = len(labels)
        labels.append(label)
        areas.append(int(mask.sum()))
        _paint(rng, image, mask)
    noise = rng.normal(0, 6, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    masks = owner[None] == np.arange(len(labels))[:, None, None]
    stuff[owner >= 0] = -1
    return Scene(image, labels, masks, stuff)


def _background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two textures on either side of a random line: image (S, S, 3) float and stuff map (S, S)."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    side = x * np.cos(angle) + y * np.sin(angle) > rng.uniform(-0.3, 0.3)
    image = np.empty((size, size, 3))
    stuff = np.empty((size, size), dtype=int)
    for region, kind in zip((side, ~side), rng.choice(len(STUFF_CLASSES), 2, replace=False)):
        image[region] = _texture(rng, size, STUFF_CLASSES[kind])[region]
        stuff[region] = kind
    return image, stuff


def _texture(rng: np.random.Generator, size: int, kind: str) -> np.ndarray:
    base, other = rng.uniform(40, 215, (2, 3))
    y, x = np.mgrid[:size, :size] / size
    if kind == 'noise':
        cells = int(rng.integers(6, 24))
        amount = cv2.resize(rng.random((cells, cells)), (size, size), interpolation=cv2.INTER_CUBIC)
        other = base + rng.uniform(-60, 60, 3)
    elif kind == 'stripes':
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.2)
        amount = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        other = base + rng.uniform(-60, 60, 3)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        amount = 0.5 + 0.5 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    return base + amount[..., None] * (other - base)


def _clutter(rng: np.random.Generator, image: np.ndarray, stuff: np.ndarray) -> None:
    """Forms that are no class: lines, crosses, rings, arcs."""
    size = len(image)
    for _ in range(int(rng.integers(2, 9))):
        mask = np.zeros((size, size), np.uint8)
        cx, cy = (int(v) for v in rng.integers(0, size, 2))
        reach = int(rng.uniform(4, 24) * size / 128) + 1
        width = int(rng.integers(1, 4))
        kind = rng.integers(4)
        if kind == 0:
            dx, dy = (int(v) for v in rng.integers(-2 * reach, 2 * reach + 1, 2))
            cv2.line(mask, (cx, cy), (cx + dx, cy + dy), 1, width)
        elif kind == 1:
            cv2.drawMarker(mask, (cx, cy), 1, int(rng.choice([cv2.MARKER_CROSS, cv2.MARKER_TILTED_CROSS])), reach, width)
        elif kind == 2:
            cv2.ellipse(mask, (cx, cy), (reach, int(rng.integers(2, reach + 2))), float(rng.uniform(0, 180)), 0, 360, 1, width)
        else:
            start = float(rng.uniform(0, 360))
            cv2.ellipse(mask, (cx, cy), (reach, reach), 0, start, start + float(rng.uniform(60, 200)), 1, width)
        image[mask > 0] = rng.uniform(0, 255, 3)
        stuff[mask > 0] = -1


def _shape_mask(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One object wholly inside the image: its larger side is uniform in [MIN_SIZE, MAX_SIZE] at 128 x 128."""
    scale = size / 128
    side = rng.uniform(MIN_SIZE, MAX_SIZE) * scale
    name = CLASSES[label]
    corners = {'circle': 64, 'square': 4, 'triangle': 3, 'star': 10}[name]
    angles = 2 * np.pi * np.arange(corners) / corners + rng.uniform(0, 2 * np.pi)
    radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if name == 'star' else np.ones(corners)
    points = np.stack((np.cos(angles), np.sin(angles)), axis=1) * radii[:, None]
    points -= points.min(axis=0)
    points *= (side - 1) / points.max()
    width, height = points.max(axis=0)
    corner = rng.uniform(0, (size - 1 - width, size - 1 - height))
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points + corner).astype(np.int32)], 1)
    return mask.astype(bool)


def _paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> None:
    """Fill an object with a colour that differs from what lies under it, and a faint texture."""
    under = image[mask].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - under).max() < 60:
        colour = rng.uniform(0, 255, 3)
    y, x = np.mgrid[: len(image), : len(image)]
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 16)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period) * rng.uniform(0, 18)
    image[mask] = colour + wave[mask][:, None]


def scenes(seed: int, split: str, count: int, size: int = 128) -> Iterator[Scene]:
    """``count`` scenes of a split; each independent of the others, so a smaller set is the beginning of a larger one."""
    for index in range(count):
        yield draw_scene(np.random.default_rng([seed, SPLITS.index(split), index]), size)


def write_split(out: Path, seed: int, split: str, count: int, size: int = 128, progress=iter) -> None:
    """Write one split below ``out``: images, ``annotations/{split}.json`` and ``annotations/panoptic_{split}.json`` with its PNGs.

    The JSON files come last and whole, so that an interrupted run is never mistaken for a finished one.

    Raises:
        ValueError: when a folder that would be replaced was not generated here.
    """
    marker = out / MARKER
    if not marker.exists():
        if in_the_way := [name for name in (*SPLITS, 'annotations') if (out / name).exists()]:
            raise ValueError(f'{out} has {in_the_way[0]}/, which was not generated here and would be replaced; choose another folder')
        out.mkdir(parents=True, exist_ok=True)
        marker.write_text('generated by mmdet_detr_plugin; train, test and annotations here are replaced when it is generated again\n')
    images, annotations, panoptic = [], [], []
    image_dir, panoptic_dir = out / split, out / 'annotations' / f'panoptic_{split}'
    for folder in (image_dir, panoptic_dir):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for image_id, scene in enumerate(progress(scenes(seed, split, count, size)), start=1):
        name = f'{image_id:06d}.png'
        _write_png(image_dir / name, scene.image)
        images.append(dict(id=image_id, file_name=name, width=size, height=size))
        for label, mask, box in zip(scene.labels, scene.masks, scene.boxes_xywh()):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=box,
                    area=int(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
                )
            )
        ids, segments = _panoptic(scene)
        (panoptic_dir / name).write_bytes(encode_png(ids))
        panoptic.append(dict(image_id=image_id, file_name=name, segments_info=segments))
    things = [dict(id=i + 1, name=name, supercategory='shape', isthing=1) for i, name in enumerate(CLASSES)]
    stuff = [dict(id=len(CLASSES) + i + 1, name=name, supercategory='texture', isthing=0) for i, name in enumerate(STUFF_CLASSES)]
    info = dict(description='generated shapes', seed=seed, split=split, size=size, count=count)
    write_json(
        out / 'annotations' / f'panoptic_{split}.json', dict(info=info, images=images, annotations=panoptic, categories=things + stuff)
    )
    write_json(out / 'annotations' / f'{split}.json', dict(info=info, images=images, annotations=annotations, categories=things))


def _panoptic(scene: Scene) -> tuple[np.ndarray, list[dict]]:
    """Segment ids (S, S), 0 = void, and their descriptions in COCO's panoptic format."""
    ids = np.zeros(scene.stuff.shape, dtype=np.int64)
    regions = [(label + 1, mask) for label, mask in zip(scene.labels, scene.masks)]
    regions += [(len(CLASSES) + kind + 1, scene.stuff == kind) for kind in range(len(STUFF_CLASSES)) if (scene.stuff == kind).any()]
    segments = []
    for segment_id, (category_id, mask) in enumerate(regions, start=1):
        ids[mask] = segment_id
        box = list(cv2.boundingRect(mask.astype(np.uint8)))
        segments.append(dict(id=segment_id, category_id=category_id, area=int(mask.sum()), bbox=box, iscrowd=0))
    return ids, segments


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}; is the disk full?')
