"""COCO panoptic JSON with its PNGs of segment ids: one file a split, or one for all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask as run_lengths

from ..records import Box, DatasetRecords, is_file, leaves, split_of
from .coco import coco_content, json_files, listed_image

OTHER_TASKS = ('person_keypoints', 'captions', 'instances', 'stuff', 'image_info')


def find(source: Path) -> dict[Path, dict]:
    """Panoptic JSON files with their content; names of other tasks are not opened."""
    paths = [path for path in json_files(source) if not path.stem.startswith(OTHER_TASKS)]
    return {path: content for path in paths if (content := coco_content(path, panoptic=True))}


def read(source: Path, files: dict[Path, dict]) -> DatasetRecords:
    """Boxes, areas and masks come from the PNGs: those of the JSON can be of a mask before others were drawn over it."""
    from ..panoptic.annotation_checks import check_panoptic_content  # imports mmdet, which reading boxes does not need

    records = DatasetRecords('COCO panoptic', [])
    listed_in: dict[Path, Path] = {}
    things: dict[str, bool] = {}
    for path, content in files.items():
        try:
            check_panoptic_content(content)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        _add_classes(things, path, content['categories'])
        names = {category['id']: category['name'] for category in content['categories']}
        by_image = {annotation['image_id']: annotation for annotation in content['annotations']}
        split = split_of(path.stem) or split_of(path.parent.name) or split_of(path.parent.parent.name)
        for image in content['images']:
            _add(records, source, path, image, names, things, by_image.get(image['id']), split, listed_in)
    records.stuff = [name for name, is_thing in things.items() if not is_thing]
    # labels follow the order of classes, and panoptic models take the first ones for things
    records.classes = [name for name, is_thing in things.items() if is_thing] + records.stuff
    if records.stuff == records.classes:
        raise ValueError(
            f'{source} has no things (categories with isthing 1), only stuff: {", ".join(records.stuff[:6])}. Expected both, or things '
            'alone; regions alone are semantic segmentation, which detectors do not learn'
        )
    return records


def _add_classes(things: dict[str, bool], path: Path, categories: list[dict]) -> None:
    for category in categories:
        name, is_thing = category['name'], bool(category['isthing'])
        if things.setdefault(name, is_thing) != is_thing:
            raise ValueError(f'{path}: {name!r} is a thing (isthing 1) and stuff (isthing 0). Expected one of them; rename one category')


def _add(records, source: Path, path: Path, image: dict, names: dict, things: dict, annotation: dict | None, split, listed_in) -> None:
    image_path = listed_image(records, source, path, image, split, listed_in)
    if image_path is None:
        return None
    if annotation is None:
        return records.note('image without segments (left out)', f'{path.name}: {image["file_name"]}')
    file_name = annotation['file_name'].replace('\\', '/')
    if leaves(file_name):
        return records.note('PNG of segments outside of the data set (image left out)', f'{path.name}: {file_name}')
    png = _png_path(source, path, file_name)

    def boxes(width: int, height: int) -> list[Box] | None:
        return _boxes(records, png, (height, width), annotation['segments_info'], names, things)

    return records.add_image(image_path, boxes, split, (image['width'], image['height']), png)


def _png_path(source: Path, json_path: Path, file_name: str) -> Path:
    """The usual places of a split's PNGs; the first is the one named in messages when there is none."""
    stem = json_path.stem
    folders = [
        json_path.with_suffix(''),  # COCO's
        json_path.parent,
        source / stem,
        *(folder / name for folder in (source, json_path.parent) for name in ('segments', 'panoptic')),
        source,
    ]
    return next((folder / file_name for folder in folders if is_file(folder / file_name)), folders[0] / file_name)


def _boxes(records, png: Path, shape: tuple[int, int], segments: list[dict], names: dict, things: dict) -> list[Box] | None:
    from ..panoptic.segment_map import read_segment_map

    try:
        ids = read_segment_map(str(png), shape, ())
    except ValueError as error:
        return records.note('PNG of segments missing or not usable (image left out)', error)
    return list(_boxes_of(records, png, ids, segments, names, things))


def _boxes_of(records, png: Path, ids: np.ndarray, segments: list[dict], names: dict, things: dict) -> Iterator[Box]:
    for segment in segments:
        mask = ids == segment['id']
        if not mask.any():
            records.note('segment without a pixel in its PNG (left out)', f'{png.name}: segment {segment["id"]}')
            continue
        name = names[segment['category_id']]
        (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
        yield Box(
            name,
            left,
            top,
            right + 1 - left,
            bottom + 1 - top,
            is_crowd=bool(segment.get('iscrowd')),
            area=int(mask.sum()),
            segment_id=segment['id'],
            mask=_encoded(mask) if things[name] else None,
        )


def _encoded(mask: np.ndarray) -> dict:
    encoded = run_lengths.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())
