"""Small and random annotations and detections in COCO's format, and what pycocotools says of them."""

import copy

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_detr_plugin.comparison.analysis.coco_input import quiet


def by_pycocotools(truth: dict, found: list[dict]) -> COCOeval:
    """Its own evaluation, the usual way; ``stats`` has the six figures first."""
    with quiet():
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def annotations(objects, images: int = 2, classes: int = 2) -> dict:
    """Of objects (image, category, box_xywh_abs, further keys ...); images and categories are numbered from 1."""
    items = [
        dict(id=number, image_id=image, category_id=category, bbox=list(box), area=box[2] * box[3], iscrowd=0) | dict(*further)
        for number, (image, category, box, *further) in enumerate(objects, start=1)
    ]
    return dict(
        images=[dict(id=number, file_name=f'{number}.jpg', width=200, height=200) for number in range(1, images + 1)],
        categories=[dict(id=number, name=f'class {number}') for number in range(1, classes + 1)],
        annotations=items,
    )


def detections(*found) -> list[dict]:
    """Of (image, category, box_xywh_abs, score)."""
    return [dict(image_id=image, category_id=category, bbox=list(box), score=score) for image, category, box, score in found]


def random_annotations(rng: np.random.Generator, images: int = 30, classes: int = 5, most: int = 6, crowds: float = 0.1) -> dict:
    """Objects of all sizes; ids with gaps in no order; the last class has no object, the last images have none."""
    objects = []
    for image in range(1, images - 2):
        for _ in range(rng.integers(0, most + 1)):
            w, h = np.exp(rng.uniform(np.log(8), np.log(180), size=2))
            x, y = rng.uniform(0, 200 - w), rng.uniform(0, 200 - h)
            crowd = int(rng.random() < crowds)
            objects.append((image, int(rng.integers(1, classes)), (x, y, w, h), dict(iscrowd=crowd, area=w * h * rng.uniform(0.5, 1))))
    content = annotations(objects, images, classes)
    renumbered = (1 + rng.permutation(3 * images)[:images]).tolist()
    for image in content['images']:
        image['id'] = renumbered[image['id'] - 1]
    for annotation in content['annotations']:
        annotation['image_id'] = renumbered[annotation['image_id'] - 1]
    return content


def random_detections(rng: np.random.Generator, truth: dict, noise: float = 0.15, clutter: int = 4, digits: int | None = 2) -> list[dict]:
    """Every object is found up to two times, moved by ``noise`` of its size, in one of five as another class; and boxes of nothing.

    Args:
        digits: scores are rounded, so that many are equal; None: none are.
    """
    ids = [category['id'] for category in truth['categories']]
    found = []
    for item in truth['annotations']:
        for _ in range(rng.integers(0, 3)):
            x, y, w, h = item['bbox']
            dx, dy, dw, dh = rng.normal(scale=noise, size=4)
            category = item['category_id'] if rng.random() < 0.8 else int(rng.choice(ids))
            box = (x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh))
            found.append((item['image_id'], category, tuple(map(float, box)), float(rng.beta(4, 2))))
    for image in truth['images']:
        for _ in range(rng.integers(0, clutter + 1)):
            box = (*rng.uniform(0, 120, size=2), *rng.uniform(4, 120, size=2))
            found.append((image['id'], int(rng.choice(ids)), tuple(map(float, box)), float(rng.beta(2, 4))))
    rng.shuffle(found)
    if digits is not None:
        found = [(*rest, round(score, digits)) for *rest, score in found]
    return detections(*found)
