"""From data set records to COCO JSON, and small configs that point any model at the result."""

import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..config_files import read_config
from ..files import write_json
from .readers import read_dataset
from .readers.coco import CONVERTED
from .records import DatasetRecords


def with_splits(records: DatasetRecords, val_fraction: float = 0.2, seed: int = 0) -> DatasetRecords:
    """The records with a split for every image: 'train' or 'val', and 'test' where the source has it.

    Images without a split, and a data set of one split only, are divided at random (by seed) when there are no validation images; a 'test'
    split takes the place of a missing 'val'.

    Raises:
        ValueError: when there are fewer than two images.
    """
    splits = Counter(image.split for image in records.images)
    rename = {}
    if len(splits) == 1:
        rename = dict.fromkeys(splits)
    elif not splits['val'] and splits['test']:
        rename = {'test': 'val'}
    images = [replace(image, split=rename.get(image.split, image.split)) for image in records.images]
    if not any(image.split == 'val' for image in images):
        pool = sorted((image for image in images if image.split in (None, 'train')), key=lambda image: str(image.path))
        if len(pool) < 2:
            raise ValueError(f'training and validation both need images, there are {len(pool)}')
        random.Random(seed).shuffle(pool)
        count = min(max(1, round(val_fraction * len(pool))), len(pool) - 1)
        for number, image in enumerate(pool):
            image.split = 'val' if number < count else 'train'
    return replace(records, images=[replace(image, split=image.split or 'train') for image in images])


def write_coco(records: DatasetRecords, out: Path, image_root: Path) -> list[Path]:
    """Write ``annotations/{split}.json`` below ``out`` for every split; images stay where they are.

    Args:
        records: with splits.
        image_root: the folder that ``file_name`` is relative to, kept in the file's ``info``.

    Raises:
        ValueError: when a file that this function did not write is in the way, ``annotations`` is a link out of the folder, or a class
            name cannot stand in a config.
    """
    for name in records.classes:
        check_class_name(name)
    splits = sorted({image.split for image in records.images})
    paths = {split: out / 'annotations' / f'{split}.json' for split in splits}
    if out.is_dir() and not (out / 'annotations').resolve().is_relative_to(out.resolve()):
        raise ValueError(f'{out / "annotations"} is a link out of {out}, where nothing is written; choose another folder with --out')
    for path in (out / 'annotations' / f'{split}.json' for split in ('train', 'val', 'test')):
        if path.exists() and not is_converted(path):
            raise ValueError(f'{path} was not written by this tool and would be lost; choose another folder with --out')
    for stale in {'train', 'val', 'test'} - set(splits):
        (out / 'annotations' / f'{stale}.json').unlink(missing_ok=True)
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(records.classes)]
    ids = {category['name']: category['id'] for category in categories}
    info = dict(format=CONVERTED, source=records.layout, image_root=os.path.relpath(image_root.resolve(), out.resolve()))
    for split, path in paths.items():
        images, annotations = [], []
        for image_id, record in enumerate((image for image in records.images if image.split == split), start=1):
            # not resolved: images may be links to elsewhere
            file_name = Path(os.path.relpath(os.path.abspath(record.path), os.path.abspath(image_root))).as_posix()
            images.append(dict(id=image_id, file_name=file_name, width=record.width, height=record.height))
            for box in record.boxes:
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=ids[box.class_name],
                        bbox=[round(value, 3) for value in (box.x, box.y, box.w, box.h)],
                        area=box.w * box.h if box.area is None else box.area,
                        iscrowd=int(box.is_crowd),
                    )
                )
        write_json(path, dict(info=info, images=images, annotations=annotations, categories=categories))
    return list(paths.values())


def is_converted(annotation_file: Path) -> bool:
    """Whether ``write_coco`` wrote a file."""
    try:
        return json.loads(annotation_file.read_bytes())['info']['format'] == CONVERTED
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def converted_folder(data: Path, work_dir: Path) -> tuple[Path, DatasetRecords | None]:
    """A folder that ``config_for_dataset`` reads, from any data set.

    Args:
        data: what ``write_coco`` wrote, or a COCO, VOC or YOLO folder, which is converted into ``work_dir / 'data'``.

    Returns:
        The folder, and what was read for it; None where ``data`` was converted before.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it cannot be read or divided.
    """
    if is_converted(data / 'annotations' / 'train.json'):
        return data, None
    records = with_splits(read_dataset(data))
    write_coco(records, work_dir / 'data', data)
    return work_dir / 'data', records


def check_class_name(name: str) -> None:
    """Refuse names that mmengine would evaluate: it substitutes ``{{...}}`` in the text of a config before reading it as Python.

    Raises:
        ValueError: for a name with double braces or control characters.
    """
    if '{{' in name or not name.isprintable():
        raise ValueError(f'the class name {name!r} has double braces or control characters, which a config cannot hold; rename it')


def config_for_dataset(config_file: Path, data: Path) -> str:
    """The text of a small config that inherits ``config_file`` and trains it on a converted data set.

    Every ``num_classes`` of the model's heads is set to the data's; paths are absolute, so that the config works from any folder. Testing
    uses the test split where there is one, otherwise validation.

    Args:
        data: folder that ``write_coco`` wrote.

    Raises:
        FileNotFoundError: when the data set or its images are not there.
        ValueError: when it was not written by ``write_coco``, the model has no ``num_classes``, or the config evaluates more than boxes.
    """
    classes, image_root = _read_converted(data / 'annotations' / 'train.json')
    for name in classes:
        check_class_name(name)
    root = data.resolve()
    images = (root / image_root).resolve()
    if not images.is_dir():
        raise FileNotFoundError(f'the images of {data} should be in {images}, which is not there; convert the data set again')
    cfg = read_config(config_file)
    if isinstance(cfg.get('val_evaluator'), list):  # of boxes and of segments
        raise ValueError(
            f'{config_file} has several evaluators, as configs for panoptic data have, and {data} has boxes alone; expected a config with '
            'one, such as local-detr_r18-half_1xb2-12e_coco320. For panoptic data of your own, inherit that config and set data_root, '
            'ann_file, data_prefix and the evaluators'
        )
    changes = _class_count_changes(cfg.model.to_dict(), len(classes))
    if not changes:
        raise ValueError(f'{config_file} has no num_classes in its model; is it a detection config?')
    test = 'test' if (root / 'annotations' / 'test.json').is_file() else 'val'

    def dataset(split: str) -> str:
        return (
            f"dict(dataset=dict(data_root=data_root, metainfo=metainfo, ann_file='annotations/{split}.json', "
            f'data_prefix=dict(img={_literal(f"{images}/")})))'
        )

    return f"""# {config_file.name} on a data set converted by tools/convert_dataset.py
_base_ = {_literal(str(config_file.resolve()))}

data_root = {_literal(f'{root}/')}
metainfo = dict(classes={_literal(classes)}, palette=None)
model = {changes!r}
train_dataloader = {dataset('train')}
val_dataloader = {dataset('val')}
test_dataloader = {dataset(test)}
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/{test}.json')
"""


def _read_converted(train: Path) -> tuple[tuple[str, ...], str]:
    """Class names and ``image_root`` of a file that ``write_coco`` wrote."""
    if not train.is_file():
        raise FileNotFoundError(f'{train} does not exist; expected a folder that tools/convert_dataset.py wrote')
    if not is_converted(train):
        raise ValueError(f'{train} was not written by tools/convert_dataset.py, or is damaged; convert the data set first')
    content = json.loads(train.read_bytes())
    try:
        classes, image_root = tuple(category['name'] for category in content['categories']), content['info']['image_root']
    except (KeyError, TypeError) as error:
        raise ValueError(f'{train} is not whole ({type(error).__name__}: {error}); convert the data set again') from error
    if not isinstance(image_root, str) or '\0' in image_root or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{train} holds no class names and image_root; convert the data set again')
    return classes, image_root


def _literal(value: str | tuple[str, ...]) -> str:
    """A Python literal without braces: mmengine would take double ones for a variable to substitute."""
    return repr(value).replace('{', '\\x7b')


def _class_count_changes(model: dict, count: int) -> dict:
    """The nested dict that sets every ``num_classes`` of a model's heads; lists (cascades) are given whole."""
    changes = {}
    for key, value in model.items():
        if key == 'num_classes':
            changes[key] = count
        elif key == 'rpn_head':  # objects against background, whatever the data
            continue
        elif isinstance(value, dict) and (inner := _class_count_changes(value, count)):
            changes[key] = inner
        elif isinstance(value, list) and any(isinstance(item, dict) and _class_count_changes(item, count) for item in value):
            changes[key] = [{**item, 'num_classes': count} if 'num_classes' in item else item for item in value]
    return changes
