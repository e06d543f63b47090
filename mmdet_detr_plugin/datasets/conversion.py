"""From data set records to COCO JSON, panoptic data included."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..files import write_json
from .readers import read_dataset
from .readers.coco import CONVERTED
from .records import Box, DatasetRecords, ImageRecord, printable

SPLITS = ('test', 'train', 'val')
UNKNOWN_SPLIT = 'no file or folder name tells the split, as it does for other images (taken for training)'
SEGMENTS = 'panoptic_'  # before the split, in the name of a file of segments


def with_splits(records: DatasetRecords, val_fraction: float = 0.2, seed: int = 0, earlier: dict[str, str] | None = None) -> DatasetRecords:
    """The records with a split for every image: 'train' or 'val', and 'test' where the source has it.

    Images without a split, and a data set of one split only, are divided at random (by seed) when there are no validation images; a 'test'
    split takes the place of a missing 'val'. A 'test' split without an object, as the test sets of challenges have none, is left out and
    noted: nothing can be evaluated on it.

    Args:
        earlier: ``earlier_splits``; images stay where an earlier division has put them, else what a model was trained on would come to
            validate it.

    Raises:
        ValueError: when there are fewer than two images, none to train on, or no object to validate on in the source's 'val' split.
    """
    records = _without_unlabelled_test(records)
    splits = Counter(image.split for image in records.images)
    rename = {}
    if len(splits) == 1:
        rename = dict.fromkeys(splits)
    elif not splits['val'] and splits['test']:
        rename = {'test': 'val'}
    images = [replace(image, split=rename.get(image.split, image.split)) for image in records.images]
    unknown = [printable(image.path) for image in images if image.split is None] if len(splits) > 1 else []
    division = None
    if not any(image.split == 'val' for image in images):
        pool = sorted((image for image in images if image.split in (None, 'train')), key=lambda image: str(image.path))
        if len(pool) < 2:
            raise ValueError(f'training and validation both need images, there are {len(pool)}')
        division = dict(val_fraction=val_fraction, seed=seed)
        _divide(pool, val_fraction, seed, earlier or {})
    images = [replace(image, split=image.split or 'train') for image in images]
    if not any(image.split == 'train' for image in images):
        counts = ', '.join(f'{split}: {count}' for split, count in splits.items())
        raise ValueError(f'training and validation both need images, and the splits of the source leave none to train on ({counts})')
    records = replace(records, images=images, division=division, notes=dict(records.notes))
    if unknown:
        records.notes[UNKNOWN_SPLIT] = unknown
    return records


def _without_unlabelled_test(records: DatasetRecords) -> DatasetRecords:
    counts = Counter(image.split for image in records.images)
    labelled = {image.split for image in records.images if any(not box.is_crowd for box in image.boxes)}
    if counts['val'] and 'val' not in labelled:
        raise ValueError(
            f'training and validation both need objects, and the {counts["val"]} images of the val split have none (crowd regions and '
            'difficult objects do not count). Expected its annotations; add them, or take this split out of the data set'
        )
    if not counts['test'] or 'test' in labelled:
        return records
    notes = {**records.notes, 'test split without an object (left out, as nothing can be evaluated on it)': [f'{counts["test"]} images']}
    return replace(records, images=[image for image in records.images if image.split != 'test'], notes=notes)


def _divide(pool: list[ImageRecord], val_fraction: float, seed: int, earlier: dict[str, str]) -> None:
    """Set the split of two images or more; some that are new become validation, if what is there falls short."""
    random.Random(seed).shuffle(pool)
    count = min(max(1, round(val_fraction * len(pool))), len(pool) - 1)
    known = [earlier.get(os.path.abspath(image.path)) for image in pool]
    if not {'train', 'val'} <= set(known):  # nothing to keep, or nothing left of one side
        known = [None] * len(pool)
    to_draw = count - known.count('val')
    for image, split in zip(pool, known, strict=True):
        image.split = split or ('val' if to_draw > 0 else 'train')
        to_draw -= split is None


def earlier_splits(out: Path, source: Path, val_fraction: float = 0.2, seed: int = 0) -> dict[str, str]:
    """Absolute path of an image in ``source`` -> its split in the conversion that ``out`` holds; empty where that was divided otherwise."""
    found = {}
    for split in ('train', 'val'):
        path = out / 'annotations' / f'{split}.json'
        if not is_converted(path):
            return {}
        content = json.loads(path.read_text())
        if content['info'].get('division', dict(val_fraction=0.2, seed=0)) != dict(val_fraction=val_fraction, seed=seed):
            return {}
        found |= {os.path.abspath(source / image['file_name']): split for image in content['images']}
    return found


def write_coco(records: DatasetRecords, out: Path, image_root: Path) -> list[Path]:
    """Write ``annotations/{split}.json`` below ``out`` for every split; images stay where they are.

    Of panoptic data these files hold the things, with masks; ``annotations/panoptic_{split}.json`` beside them hold all segments, of which
    the PNGs stay where they are, too.

    Args:
        records: with splits.
        image_root: the folder that every ``file_name`` is relative to, kept in the files' ``info``.

    Raises:
        ValueError: when a file that this function did not write is in the way, ``annotations`` is a link out of the folder, or a class
            name cannot stand in a config.
    """
    for name in records.classes:
        check_class_name(name)
    if out.is_dir() and not (out / 'annotations').resolve().is_relative_to(out.resolve()):
        raise ValueError(f'{out / "annotations"} is a link out of {out}, where nothing is written; choose another folder with --out')
    possible, paths = _paths(out), _paths(out, records)
    for (prefix, _), path in possible.items():
        if (records.is_panoptic or not prefix) and path.exists() and not is_converted(path):
            raise ValueError(f'{path} was not written by this tool and would be lost; choose another folder with --out')
    for key in possible.keys() - paths.keys():
        if is_converted(possible[key]):  # of an earlier conversion
            possible[key].unlink()
    for (prefix, split), path in paths.items():
        write_json(path, _content(records, split, prefix == SEGMENTS, out, image_root))
    return list(paths.values())


def _paths(out: Path, records: DatasetRecords | None = None) -> dict[tuple[str, str], Path]:
    """(prefix, split) -> file that records are written to; without records every file that there can be."""
    prefixes = ('',) if records and not records.is_panoptic else ('', SEGMENTS)
    splits = {image.split for image in records.images} if records else SPLITS
    return {(prefix, split): out / 'annotations' / f'{prefix}{split}.json' for prefix in prefixes for split in SPLITS if split in splits}


def _content(records: DatasetRecords, split: str, panoptic: bool, out: Path, image_root: Path) -> dict:
    """What the file of a split holds: all segments by image, or the objects."""

    def file_name(path: Path) -> str:  # not resolved: images may be links to elsewhere
        return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(image_root))).as_posix()

    categories = [dict(id=index + 1, name=name) for index, name in enumerate(records.classes)]
    if panoptic:
        categories = [{**category, 'isthing': int(category['name'] not in records.stuff)} for category in categories]
    else:
        categories = [category for category in categories if category['name'] not in records.stuff]
    ids = {category['name']: category['id'] for category in categories}
    images, annotations = [], []
    for image_id, record in enumerate((image for image in records.images if image.split == split), start=1):
        images.append(dict(id=image_id, file_name=file_name(record.path), width=record.width, height=record.height))
        entries = [_entry(box, ids[box.class_name]) for box in record.boxes if box.class_name in ids]
        if panoptic:
            segments = [dict(entry, id=box.segment_id) for entry, box in zip(entries, record.boxes)]
            annotations.append(dict(image_id=image_id, file_name=file_name(record.segment_map), segments_info=segments))
            continue
        masks = [{} if box.mask is None else dict(segmentation=box.mask) for box in record.boxes if box.class_name in ids]
        for entry, mask in zip(entries, masks):
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, **entry, **mask))
    info = dict(format=CONVERTED, source=records.layout, image_root=os.path.relpath(image_root.resolve(), out.resolve()))
    if records.division:
        info |= dict(division=records.division)
    return dict(info=info, images=images, annotations=annotations, categories=categories)


def _entry(box: Box, category_id: int) -> dict:
    return dict(
        category_id=category_id,
        bbox=[round(value, 3) for value in (box.x, box.y, box.w, box.h)],
        area=box.w * box.h if box.area is None else box.area,
        iscrowd=int(box.is_crowd),
    )


def is_converted(annotation_file: Path) -> bool:
    """Whether ``write_coco`` wrote a file."""
    try:
        return json.loads(annotation_file.read_bytes())['info']['format'] == CONVERTED
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def converted_folder(data: Path, work_dir: Path, panoptic: bool = False, may_change: bool = True) -> tuple[Path, DatasetRecords | None]:
    """A folder that ``config_for_dataset`` reads, from any data set.

    Args:
        data: what ``write_coco`` wrote, or a COCO, VOC or YOLO folder, which is converted into ``work_dir / 'data'``.
        panoptic: the segments of a COCO panoptic folder are meant, not boxes.
        may_change: whether an earlier conversion in ``work_dir`` may be replaced by one of other content.

    Returns:
        The folder, and what was read for it; None where ``data`` was converted before.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it cannot be read or divided, or has changed and may not.
    """
    if is_converted(data / 'annotations' / 'train.json'):
        return data, None
    out = work_dir / 'data'
    records = with_splits(read_dataset(data, panoptic), earlier=earlier_splits(out, data))
    if not may_change and is_converted(out / 'annotations' / 'train.json') and not _is_written(records, out, data):
        raise ValueError(
            f'{data} has changed since it was converted into {out}: what was trained and what would be trained now could not be compared. '
            'Nothing was replaced; choose another --work-dir, or delete it'
        )
    write_coco(records, out, data)
    return out, records


def _is_written(records: DatasetRecords, out: Path, image_root: Path) -> bool:
    """Whether ``write_coco`` would find what it writes, notes about its making aside."""
    paths = _paths(out, records)
    if set((out / 'annotations').glob('*.json')) != set(paths.values()):
        return False
    for (prefix, split), path in paths.items():
        wanted = _content(records, split, prefix == SEGMENTS, out, image_root)
        if {**json.loads(path.read_text()), 'info': None} != {**wanted, 'info': None}:
            return False
    return True


def check_class_name(name: str) -> None:
    """Refuse names that mmengine would evaluate: it substitutes ``{{...}}`` in the text of a config before reading it as Python.

    Raises:
        ValueError: for a name with double braces or control characters.
    """
    if '{{' in name or not name.isprintable():
        raise ValueError(f'the class name {name!r} has double braces or control characters, which a config cannot hold; rename it')
