"""COCO panoptic JSON with its PNGs of segment ids: one file a split, or one for all."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as run_lengths
from scipy.ndimage import find_objects

from ..records import SPLIT_NAMES, Box, DatasetRecords, folders_of, is_file, leaves, split_of
from .coco import coco_content, json_files, listed_image

OTHER_TASKS = ('person_keypoints', 'captions', 'instances', 'stuff', 'image_info')


@dataclass
class _File:
    """One JSON on its way into the records.

    Attributes:
        names: of the categories, by id.
        things: whether a name is one's of things, of this file and those before it.
        listed_in: the file by image, of this file and those before it.
    """

    records: DatasetRecords
    source: Path
    path: Path
    split: str | None
    names: dict
    things: dict[str, bool]
    listed_in: dict[Path, Path]


def find(source: Path) -> dict[Path, dict]:
    """Panoptic JSON files with their content; names of other tasks are not opened."""
    paths = [path for path in json_files(source) if not path.stem.startswith(OTHER_TASKS)]
    return {path: content for path in paths if (content := coco_content(path, panoptic=True))}


def read(source: Path, files: dict[Path, dict]) -> DatasetRecords:
    """Boxes, areas and masks come from the PNGs: those of the JSON can be of a mask before others were drawn over it, or missing."""
    from ..panoptic.annotation_checks import check_panoptic_content  # imports mmdet, which reading boxes does not need

    records = DatasetRecords('COCO panoptic', [])
    listed_in: dict[Path, Path] = {}
    things: dict[str, bool] = {}
    for path, content in files.items():
        _leave_to_the_pixels(records, path, content)
        try:
            check_panoptic_content(content)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        _add_classes(things, path, content['categories'])
        names = {category['id']: category['name'] for category in content['categories']}
        by_image = {annotation['image_id']: annotation for annotation in content['annotations']}
        split = split_of(path.stem, *folders_of(source, path))
        file = _File(records, source, path, split, names, things, listed_in)
        before = len(records.images)
        for image in content['images']:
            _add(file, image, by_image.get(image['id']))
        if by_image:
            records.check_some_used(len(records.images) - before, len(content['images']), path)
    records.stuff = [name for name, is_thing in things.items() if not is_thing]
    # labels follow the order of classes, and panoptic models take the first ones for things
    records.classes = [name for name, is_thing in things.items() if is_thing] + records.stuff
    if records.stuff == records.classes:
        raise ValueError(
            f'{source} has no things (categories with isthing 1), only stuff: {", ".join(records.stuff[:6])}. Expected both, or things '
            'alone; regions alone are semantic segmentation, which detectors do not learn'
        )
    return records


def _leave_to_the_pixels(records: DatasetRecords, path: Path, content: dict) -> None:
    """Take out what is noted instead of refused, and fill in what is measured later."""
    listed = {image.get('id') for image in content['images'] if isinstance(image, dict) and type(image.get('id')) in (int, str)}
    kept = []
    for annotation in content['annotations']:
        image_id = annotation.get('image_id') if isinstance(annotation, dict) else None
        if type(image_id) in (int, str) and image_id not in listed:
            records.note('annotation of an image that is not listed', f'{path.name}: image_id {image_id}')
            continue
        kept.append(annotation)
        segments = annotation.get('segments_info') if isinstance(annotation, dict) else None
        for segment in segments if isinstance(segments, list) else ():
            if isinstance(segment, dict):
                segment |= dict(bbox=[0, 0, 1, 1], area=1)
    content['annotations'] = kept


def _add_classes(things: dict[str, bool], path: Path, categories: list[dict]) -> None:
    for category in categories:
        name, is_thing = category['name'], bool(category['isthing'])
        if things.setdefault(name, is_thing) != is_thing:
            raise ValueError(f'{path}: {name!r} is a thing (isthing 1) and stuff (isthing 0). Expected one of them; rename one category')


def _add(file: _File, image: dict, annotation: dict | None) -> None:
    records, source = file.records, file.source
    if annotation is None:
        return records.note('image without segments (left out)', f'{file.path.name}: {image["file_name"]}')
    file_name = annotation['file_name'].replace('\\', '/')
    if leaves(file_name):
        return records.note('PNG of segments outside of the data set (image left out)', f'{file.path.name}: {file_name}')
    folders = _png_folders(file)
    png = next((folder / file_name for folder in folders if is_file(folder / file_name)), None)
    image_path = listed_image(records, source, file.path, image, file.split, file.listed_in, other_than=png)
    if image_path is None:
        return None
    if png is None:
        places = ', '.join(dict.fromkeys(os.path.relpath(folder, source) for folder in folders))
        return records.note('PNG of segments missing (image left out); unpack them', f'{file_name}, looked for in {source}: {places}')
    if image_path == png:
        return records.note('image file missing', f'{image_path} is the PNG of its segments')

    def boxes(width: int, height: int) -> list[Box] | None:
        return _boxes(file, png, (height, width), annotation['segments_info'])

    return records.add_image(image_path, boxes, file.split, (image['width'], image['height']), png)


def _png_folders(file: _File) -> list[Path]:
    """The usual places of a split's PNGs. Folders that are named for segments come first: images can have the PNGs' names."""
    roots = dict.fromkeys((file.path.parent, file.source))
    splits = [file.path.stem, *(name for name, meant in SPLIT_NAMES.items() if meant == file.split)]
    named = [root / name / part for root in roots for name in ('panoptic', 'segments', 'masks') for part in (*splits, '.')]
    return [*named, *(root / file.path.stem for root in roots), *roots]  # COCO's own are named like the JSON


def _boxes(file: _File, png: Path, shape: tuple[int, int], segments: list[dict]) -> list[Box] | None:
    from ..panoptic.segment_map import read_segment_map

    records = file.records
    try:
        ids = read_segment_map(str(png), shape, ())
    except ValueError as error:
        return records.note('PNG of segments not usable (image left out)', error)
    found = _regions(ids)
    listed = {segment['id'] for segment in segments}
    if unlisted := {number: area for number, (_, area) in found.items() if number not in listed}:
        records.note('pixels of ids that are not in segments_info (void)', f'{png}: {unlisted}')
    if listed and not listed & found.keys():
        return records.note("PNG without any of its segments (image left out): is it another image's?", png)
    boxes = []
    for segment in segments:
        if segment['id'] not in found:
            records.note('segment without a pixel in its PNG (left out)', f'{png}: segment {segment["id"]}')
            continue
        (rows, columns), area = found[segment['id']]
        name, size = file.names[segment['category_id']], (columns.stop - columns.start, rows.stop - rows.start)
        is_crowd = bool(segment.get('iscrowd'))
        mask = _encoded(ids == segment['id']) if file.things[name] else None
        boxes.append(Box(name, columns.start, rows.start, *size, is_crowd, area, segment_id=segment['id'], mask=mask))
    return boxes


def _regions(ids: np.ndarray) -> dict[int, tuple[tuple[slice, slice], int]]:
    """Rows, columns and number of pixels of each id but void's."""
    numbers, places, areas = np.unique(ids, return_inverse=True, return_counts=True)
    slices = find_objects(places.reshape(ids.shape) + 1)
    return {int(number): (where, int(area)) for number, where, area in zip(numbers, slices, areas) if number}


def _encoded(mask: np.ndarray) -> dict:
    encoded = run_lengths.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())
