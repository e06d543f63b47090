"""A COCO detection JSON as arrays, with what is wrong with its entries as such (ids, missing or odd fields)."""

import gc
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.panoptic.segments_as_instances import segments_as_instances
from .finding import ERROR, WARNING, Finding, listed

LARGEST = sys.float_info.max
NEEDED = {'images': ('id', 'file_name', 'width', 'height'), 'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area')}
REPAIR = 'write the file anew with tools/convert_dataset.py, or correct it where it was made'


@dataclass
class Annotations:
    """M images, N annotations in the order of the file.

    Attributes:
        path: of the JSON file.
        categories: (id, name) in the file's order.
        file_names: M names, as in the file.
        sizes_wh: (M, 2), stated there; NaN where it is no number.
        boxes_xywh_abs: (N, 4); NaN where there are no four numbers.
        areas: (N,); NaN where there is none.
        image: (N,), index of the image; -1 where it is not listed.
        category: (N,), index of the category; -1 where it is not listed.
        is_crowd: (N,), regions that are not trained on and ignored in evaluation.
        is_ignored: (N,), marked ``ignore``: mmdet leaves them out of training.
        ids: N annotation ids.
        num_without_iscrowd: annotations that do not say whether they are crowds.
        findings: faults of the file.
        stuff: names of the categories without instances, in a panoptic file.
        segment_files: names of the PNGs of segments, in a panoptic file.
        refused: why ``StrictCocoDataset`` would not read it; None where it would, and for panoptic files.
    """

    path: Path
    categories: list[tuple[object, str]]
    file_names: list[str]
    sizes_wh: np.ndarray
    boxes_xywh_abs: np.ndarray
    areas: np.ndarray
    image: np.ndarray
    category: np.ndarray
    is_crowd: np.ndarray
    is_ignored: np.ndarray
    ids: list
    num_without_iscrowd: int
    findings: list[Finding]
    stuff: frozenset[str] = frozenset()
    segment_files: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def known_sizes_wh(self) -> np.ndarray:
        """Sizes of the images that have one."""
        return self.sizes_wh[(self.sizes_wh > 0).all(axis=1)]

    def where(self, number: int) -> str:
        """An annotation, for people."""
        image = self.image[number]
        return f'annotation {self.ids[number]}' + (f' of {self.file_names[image]}' if image >= 0 else '')


def read_annotations(path: Path, panoptic: bool = False) -> Annotations:
    """Read a file; with ``panoptic`` also one of segments, whose boxes count.

    Raises:
        ValueError: when it is missing, no JSON, or holds no lists of images and categories; the message says what was expected.
    """
    content = _parsed(path, panoptic)
    images, annotations = content['images'], content.get('annotations') or []
    findings = _faults(path, content)
    image_ids, category_ids = _column(images, 'id'), _column(content['categories'], 'id')
    image_index = {_key(value): index for index, value in enumerate(image_ids)}
    category_index = {_key(value): index for index, value in enumerate(category_ids)}
    sizes = np.stack((_numbers(_column(images, 'width')), _numbers(_column(images, 'height'))), axis=1)
    found = Annotations(
        path=path,
        categories=list(zip(category_ids, map(str, _column(content['categories'], 'name')))),
        file_names=[str(name or '') for name in _column(images, 'file_name')],
        sizes_wh=sizes,
        boxes_xywh_abs=_boxes(_column(annotations, 'bbox')),
        areas=_numbers(_column(annotations, 'area')),
        image=_indices(_column(annotations, 'image_id'), image_index),
        category=_indices(_column(annotations, 'category_id'), category_index),
        is_crowd=np.array([bool(item.get('iscrowd')) for item in annotations], dtype=bool),
        is_ignored=np.array([bool(item.get('ignore')) for item in annotations], dtype=bool),
        ids=_column(annotations, 'id'),
        num_without_iscrowd=sum(item.get('iscrowd') is None for item in annotations),
        findings=findings,
        segment_files=tuple(str(name or '') for name in content.get('segment_files', ())),
        refused=None if panoptic else _refusal(content),
        stuff=frozenset(str(category.get('name')) for category in content['categories'] if panoptic and not category.get('isthing', 1)),
    )
    findings += _odd_values(found, images, annotations)
    return found


def _refusal(content: dict) -> str | None:
    try:
        from ..datasets.coco_checks import FIX, check_content  # needs mmdet, which may be what is broken
    except ImportError:
        return None
    try:
        check_content(content)
    except ValueError as error:
        return str(error).removesuffix(f' {FIX}')
    return None


def _parsed(path: Path, panoptic: bool) -> dict:
    expected = 'expected a COCO JSON with the lists "images", "annotations" and "categories"'
    if not path.is_file():
        raise ValueError(f'the annotation file {path} does not exist; {expected}')
    collects = gc.isenabled()
    gc.disable()  # else the collector walks over millions of new objects again and again
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON ({error}); {expected}') from error
    finally:
        if collects:
            gc.enable()
    lists = ('images', 'categories')
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        got = f'the keys {listed(sorted(content))}' if isinstance(content, dict) else f'a {type(content).__name__}'
        raise ValueError(f'{path} is no COCO JSON: {expected}, got {got}')
    for key in (*lists, 'annotations'):
        items = content.get(key) or []
        if not isinstance(items, list) or not all(map(dict.__instancecheck__, items)):
            raise ValueError(f'{path}: "{key}" is no list of objects; {expected}')
    if not panoptic and any('segments_info' in item for item in (content.get('annotations') or [])[:1]):
        raise ValueError(f'{path} holds panoptic segments, not boxes; {expected}')
    files = {'segment_files': _column(content.get('annotations') or [], 'file_name')} if panoptic else {}
    return segments_as_instances(content) | files


def _faults(path: Path, content: dict) -> list[Finding]:
    """Missing fields and ids that occur twice."""
    findings = []
    for key, fields in NEEDED.items():
        items = content.get(key) or []
        for name in fields:
            if missing := sum(item.get(name) is None for item in items):
                first = next(item for item in items if item.get(name) is None)
                what = f'{path.name}: {missing} of {len(items)} {key} have no "{name}", the first: id {first.get("id")}'
                findings.append(Finding('data', ERROR, what, f'mmdet stops at the first one; {REPAIR}'))
    consequences = {
        'images': 'the last one hides the others, and their objects are mixed',
        'annotations': 'mmdet refuses the file',
        'categories': 'the last one hides the others',
    }
    for key, consequence in consequences.items():
        counts = Counter(_key(item.get('id')) for item in content.get(key) or [] if item.get('id') is not None)
        if twice := [value for value, count in counts.items() if count > 1]:
            what = f'{path.name}: {len(twice)} ids of {key} occur more than once: {listed(twice)}'
            findings.append(Finding('data', ERROR, what, f'{consequence}; number them anew, each id once ({REPAIR})'))
    counts = Counter(_key(item.get('name')) for item in content['categories'])
    if twice := [name for name, count in counts.items() if count > 1]:
        what = f'{path.name}: {len(twice)} category names occur more than once: {listed(twice)}'
        findings.append(Finding('data', ERROR, what, 'labels then run beyond the list of classes; merge these categories'))
    return findings


def _odd_values(found: Annotations, images: list[dict], annotations: list[dict]) -> list[Finding]:
    """Annotations that belong to no image, to no category, or have no box; images without a size."""
    findings = []
    name, total = found.path.name, len(annotations)
    stated = np.array([item.get('image_id') is not None for item in annotations], dtype=bool)
    if count := int(((found.image < 0) & stated).sum()):
        first = annotations[int(np.argmax((found.image < 0) & stated))]
        what = f'{name}: {count} of {total} annotations belong to images that are not listed, the first: image_id {first.get("image_id")}'
        findings.append(Finding('data', WARNING, what, f'they are left out in silence; list these images, or remove them ({REPAIR})'))
    unknown = sorted({_key(item.get('category_id')) for item in annotations} - {_key(key) for key, _ in found.categories} - {None}, key=str)
    if unknown:
        count = int((found.category < 0).sum())
        what = f'{name}: {count} of {total} annotations have a category_id that is not among the categories: {listed(unknown)}'
        listed_ids = listed([key for key, _ in found.categories])
        advice = f'the file lists {listed_ids}; add the missing categories or correct the ids (some tools count from 0, others from 1)'
        findings.append(Finding('data', ERROR, what, advice))
    sizeless = np.array([item.get('width') is not None and item.get('height') is not None for item in images], dtype=bool)
    sizeless &= ~(found.sizes_wh > 0).all(axis=1)
    if count := int(sizeless.sum()):
        first = images[int(np.argmax(sizeless))]
        stated = f'{first["width"]!r} x {first["height"]!r} of {first.get("file_name")}'
        what = f'{name}: {count} of {len(images)} image sizes are no positive numbers, the first: {stated}'
        findings.append(Finding('data', ERROR, what, f'write width and height in pixels; {REPAIR}'))
    odd = [item for item in annotations if item.get('bbox') is not None and not _is_box(item['bbox'])]
    if odd:
        what = f'{name}: {len(odd)} of {total} boxes are no four numbers, the first: {odd[0]["bbox"]!r} of annotation {odd[0].get("id")}'
        findings.append(Finding('data', ERROR, what, f'write each as [x, y, width, height] in pixels; {REPAIR}'))
    return findings


def _column(items: list[dict], key: str) -> list:
    return [item.get(key) for item in items]


def _key(value: object) -> object:
    """A value as a key, whatever a broken file holds."""
    return value if isinstance(value, (int, float, str, type(None))) else repr(value)


def _indices(keys: list, index: dict) -> np.ndarray:
    return np.array([index.get(_key(key), -1) for key in keys], dtype=np.int64)


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_number(value: object) -> bool:
    """JSON's whole numbers may have thousands of digits, which no float holds."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST)


def _numbers(values: list) -> np.ndarray:
    return np.array([value if _is_number(value) else np.nan for value in values], dtype=float)


def _boxes(values: list) -> np.ndarray:
    nothing = [np.nan] * 4
    return np.array([box if _is_box(box) else nothing for box in values], dtype=float).reshape(-1, 4)
