"""From data set records to COCO JSON, and small configs that point any model at the result."""

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from .recognition import DatasetRecords, ImageRecord
from .shapes import write_json

INFO_FORMAT = 'mmdet_detr_plugin.converted'


def with_splits(records: DatasetRecords, val_fraction: float = 0.2, seed: int = 0) -> DatasetRecords:
    """The records with a split for every image: 'train' or 'val', and 'test' where the source has it.

    Images without a split go to 'train', or are divided at random (by seed) when the source has no validation images; a 'test' split takes
    the place of a missing 'val'.

    Raises:
        ValueError: when a split would be empty.
    """
    images = [replace(image) for image in records.images]
    splits = Counter(image.split for image in images)
    if not splits['val'] and splits['test']:
        images = [replace(image, split='val' if image.split == 'test' else image.split) for image in images]
    elif not splits['val']:
        pool = sorted((image for image in images if image.split in (None, 'train')), key=lambda image: str(image.path))
        random.Random(seed).shuffle(pool)
        count = max(1, round(val_fraction * len(pool)))
        for number, image in enumerate(pool):
            image.split = 'val' if number < count else 'train'
    images = [replace(image, split=image.split or 'train') for image in images]
    splits = Counter(image.split for image in images)
    if not splits['train'] or not splits['val']:
        raise ValueError(f'training and validation both need images, got {dict(splits)} of {len(images)} usable ones')
    return replace(records, images=images)


def write_coco(records: DatasetRecords, out: Path, image_root: Path) -> list[Path]:
    """Write ``annotations/{split}.json`` below ``out`` for every split; images stay where they are.

    Args:
        records: with splits.
        image_root: the folder that ``file_name`` is relative to, kept in the file's ``info``.
    """
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(records.classes)]
    ids = {category['name']: category['id'] for category in categories}
    written = []
    for split in sorted({image.split for image in records.images}):
        images, annotations = [], []
        for image_id, record in enumerate((image for image in records.images if image.split == split), start=1):
            images.append(_image_entry(image_id, record, image_root))
            for box in record.boxes:
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=ids[box.class_name],
                        area=box.w * box.h,
                        bbox=[round(value, 3) for value in (box.x, box.y, box.w, box.h)],
                        iscrowd=int(box.is_crowd),
                    )
                )
        info = dict(format=INFO_FORMAT, source=records.layout, image_root=os.path.relpath(image_root, out))
        path = out / 'annotations' / f'{split}.json'
        write_json(path, dict(info=info, images=images, annotations=annotations, categories=categories))
        written.append(path)
    return written


def _image_entry(image_id: int, record: ImageRecord, image_root: Path) -> dict:
    file_name = record.path.resolve().relative_to(image_root.resolve()).as_posix()
    return dict(id=image_id, file_name=file_name, width=record.width, height=record.height)


def config_for_dataset(config_file: Path, classes: list[str], data_root: Path, image_root: Path, train: str, val: str) -> str:
    """The text of a small config that inherits ``config_file`` and trains it on a COCO-format data set.

    Every ``num_classes`` of the model that fits the inherited classes is set to the new number; paths are absolute, so that the config
    works from any folder.

    Args:
        train: annotation file of the training images, relative to ``data_root``.
        val: the same for validation; also used for testing.

    Raises:
        ValueError: when the model has no ``num_classes`` to set.
    """
    from mmengine.config import Config  # slow to import, and converting does not need it

    base = Config.fromfile(config_file)
    changes = _class_count_changes(base.model.to_dict(), len(classes))
    if not changes:
        raise ValueError(f'{config_file} has no num_classes in its model; is it a detection config?')
    root, images = f'{data_root.resolve()}/', f'{image_root.resolve()}/'
    dataset = 'dict(data_root=data_root, metainfo=metainfo, ann_file={!r}, data_prefix=dict(img={!r}))'
    return f"""# {config_file.name} on {data_root.resolve()}
_base_ = {str(config_file.resolve())!r}

data_root = {root!r}
metainfo = dict(classes={tuple(classes)!r}, palette=None)
model = {changes!r}
train_dataloader = dict(dataset={dataset.format(train, images)})
val_dataloader = dict(dataset={dataset.format(val, images)})
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + {val!r})
test_evaluator = val_evaluator
"""


def _class_count_changes(model: dict, count: int) -> dict:
    """The nested dict that sets every ``num_classes`` of a model's heads."""
    changes = {}
    for key, value in model.items():
        if key == 'num_classes':
            changes[key] = count
        elif isinstance(value, dict) and key != 'rpn_head' and (inner := _class_count_changes(value, count)):
            changes[key] = inner
    return changes
