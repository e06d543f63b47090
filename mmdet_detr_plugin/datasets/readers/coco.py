"""COCO detection JSON: one file a split, or one for all."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..records import SPLIT_NAMES, Box, DatasetRecords, folders_of, is_file, leaves, read_text, split_of

OTHER_TASKS = ('person_keypoints', 'captions', 'panoptic', 'stuff', 'image_info')
LARGEST = sys.float_info.max
CONVERTED = 'mmdet_detr_plugin.converted'  # info.format of what this package wrote


def find(source: Path) -> dict[Path, dict]:
    """Detection JSON files with their content, so that large ones are parsed once; names of other tasks are not opened."""
    candidates = json_files(source)
    instances = _detection_files(path for path in candidates if path.stem.startswith('instances_'))
    if instances:
        return instances
    return _detection_files(path for path in candidates if not path.stem.startswith(OTHER_TASKS))


def json_files(source: Path) -> list[Path]:
    """Where annotation files of COCO's formats lie."""
    patterns = ('*.json', 'annotations/*.json', '*/*.json', '*/annotations/*.json')
    return sorted({path for pattern in patterns for path in source.glob(pattern)})


def _detection_files(paths: Iterable[Path]) -> dict[Path, dict]:
    return {path: content for path in paths if (content := coco_content(path, panoptic=False))}


def coco_content(path: Path, panoptic: bool) -> dict | None:
    """The file's content, if it holds boxes, or panoptic segments, that another program wrote."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):  # nested too deeply: no COCO file either
        return None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ('images', 'annotations', 'categories')):
        return None
    is_panoptic = _first_has(content['annotations'], 'segments_info')
    if panoptic and not content['annotations']:  # of a test set
        is_panoptic = _first_has(content['categories'], 'isthing')
    info = content.get('info')
    is_ours = isinstance(info, dict) and info.get('format') == CONVERTED
    return None if is_panoptic != panoptic or is_ours else content


def _first_has(entries: list, key: str) -> bool:
    return bool(entries) and isinstance(entries[0], dict) and key in entries[0]


def read(source: Path, files: dict[Path, dict]) -> DatasetRecords:
    records = DatasetRecords('COCO', [])
    listed_in: dict[Path, Path] = {}
    for path, content in files.items():
        try:
            names = {category['id']: str(category['name']) for category in content['categories']}
            images = {image['id']: image for image in content['images']}
            by_image: dict = {}
            for annotation in content['annotations']:
                by_image.setdefault(annotation['image_id'], []).append(annotation)
            used = {annotation.get('category_id') for annotation in content['annotations']}
            parents = {category.get('supercategory') for category in content['categories']}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}: expected images with "id", categories with "id" and "name", annotations with "image_id"; got {error!r}'
            ) from error
        _check_unique(path, content)
        for category_id, name in names.items():
            if category_id not in used and name in parents and len(names) > 1:
                records.note('category that only groups others (dropped)', f'{path.name}: {name}')
            elif name in records.classes and list(names.values()).count(name) > 1:
                records.note('categories of one name (joined)', f'{path.name}: {name}')
            elif name not in records.classes:
                records.classes.append(name)
        for image_id in sorted(set(by_image) - set(images), key=str):
            records.note('annotation of an image that is not listed', f'{path.name}: image_id {image_id}')
        if any(annotation.get('segmentation') for annotation in content['annotations']):
            records.note('masks of objects (boxes alone are kept; configs with masks read the original file)', path.name)
        split = split_of(path.stem, *folders_of(source, path))
        before = len(records.images)
        for image_id, image in images.items():
            _add(records, source, path, image, names, by_image.get(image_id, []), split, listed_in)
        if by_image or split != 'test':  # a test set without ground truth is of no use anyway
            records.check_some_used(len(records.images) - before, len(images), path)
    return records


def _check_unique(path: Path, content: dict) -> None:
    for key in ('images', 'categories'):
        counts = Counter(entry['id'] for entry in content[key])
        if twice := [entry_id for entry_id, count in counts.items() if count > 1]:
            raise ValueError(
                f'{path}: {key} must have different ids, and id {twice[0]} is there {counts[twice[0]]} times: one would be lost. '
                'Number them anew'
            )


def _add(records, source: Path, path: Path, image: dict, names: dict, annotations: list[dict], split: str | None, listed_in: dict) -> None:
    if image_path := listed_image(records, source, path, image, split, listed_in):
        size = image.get('width'), image.get('height')
        records.add_image(image_path, lambda w, h: _boxes(records, path, names, annotations), split, size if all(size) else None)


def listed_image(
    records, source: Path, path: Path, image: dict, split: str | None, listed_in: dict[Path, Path], other_than: Path | None = None
) -> Path | None:
    """Where an image that an annotation file lists should be; None, and a note, where its name is of no use.

    Args:
        listed_in: which file has listed an image before; the image is added.
        other_than: a file that is not the image, though it may have its name.

    Raises:
        ValueError: when two files list it.
    """
    file_name = str(image.get('file_name', '')).replace('\\', '/')
    if not file_name or leaves(file_name):
        return records.note('file_name is empty or points outside of the data set', f'{path.name}: {file_name!r}')
    image_path = image_path_of(source, path, file_name, split, other_than)
    other = listed_in.setdefault(image_path, path)
    if other != path:
        raise ValueError(
            f'{image_path} is listed in {other} and in {path}. Expected every image once; move the file that is not meant (an older or a '
            'combined one) out of the folder.'
        )
    return image_path


def image_path_of(source: Path, json_path: Path, file_name: str, split: str | None, other_than: Path | None = None) -> Path:
    """The usual places of a split's images; the first is the one named in messages when there is none."""
    stem = json_path.stem.removeprefix('instances_').removeprefix('panoptic_')
    folders = [
        source / stem,
        source,
        source / 'images',
        source / 'images' / stem,
        source / 'data',
        json_path.parent,
        json_path.parent / 'images',
    ]
    aliases = [name for name, meant in SPLIT_NAMES.items() if meant == split]
    folders += [source / folder / alias for alias in aliases for folder in ('.', 'images')]
    folders.append(json_path.parent.parent / 'images')
    paths = [folder / file_name for folder in folders]
    return next((path for path in paths if path != other_than and is_file(path)), paths[0])


def _boxes(records: DatasetRecords, path: Path, names: dict, annotations: list[dict]) -> list[Box]:
    boxes = []
    for annotation in annotations:
        where = f'{path.name}: annotation {annotation.get("id")}'
        box, (area,) = annotation.get('bbox'), _floats([annotation.get('area')])
        box = _floats(box) if isinstance(box, list) and len(box) == 4 else [None]
        if None in box:
            records.note('annotation without a box of four numbers', where)
        elif 'category_id' not in annotation or annotation['category_id'] not in names:
            records.note('category_id is not among the categories', f'{where}: {annotation.get("category_id")}')
        else:
            area = area if area is not None and 0 < area < math.inf else None
            is_crowd = bool(annotation.get('iscrowd'))
            if is_ignored(annotation):
                is_crowd = True
                records.note('annotation with "ignore" (kept as a region to ignore, as a crowd is)', where)
            boxes.append(Box(names[annotation['category_id']], *box, is_crowd=is_crowd, area=area))
    return boxes


def is_ignored(annotation: dict) -> bool:
    """Whether it is a region to ignore that is not marked as COCO does, with iscrowd."""
    return bool(annotation.get('ignore')) and not annotation.get('iscrowd')


def _floats(values: list) -> list[float | None]:
    """None for what is no number, or one of hundreds of digits."""
    return [float(value) if isinstance(value, (int, float)) and not abs(value) > LARGEST else None for value in values]
