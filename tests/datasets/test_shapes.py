"""The generator: determinism, and ground truth that fits the pixels."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_detr_plugin.datasets import shapes


def digest(folder) -> str:
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return hashlib.sha256(b''.join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)).hexdigest()


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        shapes.write_split(tmp_path / name, seed, 'train', 3)
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b') != digest(tmp_path / 'c')


def test_smaller_set_is_the_beginning_of_a_larger_one_and_splits_differ():
    few, many, other = (list(shapes.scenes(0, split, count)) for split, count in (('train', 2), ('train', 4), ('test', 2)))
    for a, b in zip(few, many):
        assert np.array_equal(a.image, b.image) and a.labels == b.labels
    assert not np.array_equal(few[0].image, other[0].image)


def test_defaults_are_as_fixed():
    assert (shapes.CLASSES, shapes.MIN_SIZE, shapes.MAX_SIZE, shapes.MAX_OBJECTS, shapes.EMPTY_FRACTION) == (
        ('circle', 'square', 'triangle', 'star'),
        12,
        80,
        8,
        0.05,
    )
    scenes = list(shapes.scenes(0, 'train', 300))
    counts = np.array([len(scene.labels) for scene in scenes])
    assert scenes[0].image.shape == (128, 128, 3) and counts.max() == 8 and 0.02 < (counts == 0).mean() < 0.08
    assert all(np.bincount(sum((scene.labels for scene in scenes), [])) > 200)
    overlapping = sum((scene.masks.sum(0) > 1).any() for scene in scenes)
    assert overlapping == 0  # masks are of visible pixels
    sides = np.array([max(w, h) for scene in scenes for _, _, w, h in scene.boxes_xywh()])
    assert sides.max() <= 80 and np.percentile(sides, 5) >= 12 and sides.min() >= 6


@pytest.mark.parametrize('size', [64, 200])
def test_boxes_are_tight_around_visible_pixels(size):
    for scene in shapes.scenes(1, 'test', 20, size):
        assert len(scene.labels) == len(scene.masks) and scene.image.shape == (size, size, 3)
        for mask, (x, y, w, h) in zip(scene.masks, scene.boxes_xywh()):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert (x, y, w, h) == (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)


def test_files_agree_with_each_other(tmp_path):
    shapes.write_split(tmp_path, 0, 'train', 12)
    boxes, panoptic = (json.loads((tmp_path / 'annotations' / name).read_text()) for name in ('train.json', 'panoptic_train.json'))
    assert [category['name'] for category in boxes['categories']] == list(shapes.CLASSES)
    assert [category['isthing'] for category in panoptic['categories']] == [1] * 4 + [0] * 3
    for image, annotation in zip(boxes['images'], panoptic['annotations'], strict=True):
        assert cv2.imread(str(tmp_path / 'train' / image['file_name'])).shape == (128, 128, 3)
        rgb = cv2.imread(str(tmp_path / 'annotations' / 'panoptic_train' / annotation['file_name']))[..., ::-1].astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        objects = [item for item in boxes['annotations'] if item['image_id'] == image['id']]
        things = [segment for segment in annotation['segments_info'] if segment['category_id'] <= 4]
        assert len(objects) == len(things)
        for item, segment in zip(objects, things):
            mask = coco_mask.decode(dict(item['segmentation']))
            assert np.array_equal(mask.astype(bool), ids == segment['id'])
            assert item['area'] == segment['area'] == mask.sum() and item['bbox'] == segment['bbox']
            assert item['category_id'] == segment['category_id']
        assert set(np.unique(ids)) <= {0} | {segment['id'] for segment in annotation['segments_info']}
        assert len(annotation['segments_info']) - len(things) in (1, 2)  # two textures; one may be hidden


def test_folder_that_was_not_generated_is_never_emptied(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'photograph.png').write_bytes(b'precious')
    with pytest.raises(ValueError, match='has train/, which was not generated here'):
        shapes.write_split(tmp_path, 0, 'train', 1)
    assert (tmp_path / 'train' / 'photograph.png').read_bytes() == b'precious'
