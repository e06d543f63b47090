"""Small configs that point any model at a converted data set."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config_files import dataset_chains, innermost_dataset, read_config
from .conversion import SEGMENTS, check_class_name, is_converted


def trains_on_segments(cfg) -> bool:
    """Whether a resolved config is for panoptic data: its training data have a folder of PNGs, its model things and stuff."""
    dataset = innermost_dataset(cfg.get('train_dataloader') or {})
    return bool((dataset.get('data_prefix') or {}).get('seg')) and 'num_things_classes' in dict(_numbers(cfg.model))


def config_for_dataset(config_file: Path, data: Path) -> str:
    """The text of a small config that inherits ``config_file`` and trains it on a converted data set.

    Every ``num_classes`` of the model's heads is set to the data's; paths are absolute, so that the config works from any folder. Testing
    uses the test split where there is one, otherwise validation. A config for panoptic data is pointed at the segments, and its numbers of
    things and of stuff are set, too.

    Args:
        data: folder that ``write_coco`` wrote.

    Raises:
        FileNotFoundError: when the data set or its images are not there.
        ValueError: when it was not written by ``write_coco``, is panoptic and has no segments, or the numbers of classes of the model are
            not found, or a loader has several data sets.
    """
    cfg = read_config(config_file)
    panoptic = trains_on_segments(cfg)
    if panoptic and not (data / 'annotations' / f'{SEGMENTS}train.json').is_file() and is_converted(data / 'annotations' / 'train.json'):
        raise ValueError(
            f'{config_file} is for panoptic data and {data} has boxes alone; expected a folder that tools/convert_dataset.py --panoptic '
            'wrote, or a config for boxes, such as local-detr_r18-half_1xb2-12e_coco320'
        )
    prefix = SEGMENTS if panoptic else ''
    converted = _read_converted(data / 'annotations' / f'{prefix}train.json')
    for name in converted.classes:
        check_class_name(name)
    root = data.resolve()
    images = (root / converted.image_root).resolve()
    if not images.is_dir():
        raise FileNotFoundError(f'the images of {data} should be in {images}, which is not there; convert the data set again')
    if panoptic:
        changes = _panoptic_class_changes(cfg.model.to_dict(), len(converted.classes), converted.num_stuff, config_file)
    else:
        model = cfg.model.to_dict()
        keys = ('num_classes', 'num_things_classes') if model.get('num_stuff_classes') == 0 else ('num_classes',)  # masks of things alone
        changes = _changes(model, lambda key, value: len(converted.classes) if key in keys else None)
    if not changes:
        raise ValueError(f'{config_file} has no num_classes in its model; is it a detection config?')
    test = 'test' if (root / 'annotations' / f'{prefix}test.json').is_file() else 'val'
    folder = _literal(f'{images}/')
    folders = f'dict(img={folder}, seg={folder})' if panoptic else f'dict(img={folder})'

    def dataset(key: str, split: str) -> str:
        text = f"data_root=data_root, metainfo=metainfo, ann_file='annotations/{prefix}{split}.json', data_prefix={folders}"
        for _ in range(_depth(cfg.get(key) or {}, key, config_file)):
            text = f'dataset=dict({text})'
        return f'dict({text})'

    def evaluator(key: str, split: str) -> str:
        configured = cfg.get(key)
        if isinstance(configured, list):  # given whole, as mmengine merges no lists
            return f'[{", ".join(_evaluator(item.to_dict(), split, images) for item in configured)}]'
        return _evaluator(configured, split, images, whole=False)

    return f"""# {config_file.name} on a data set converted by tools/convert_dataset.py
_base_ = {_literal(str(config_file.resolve()))}

data_root = {_literal(f'{root}/')}
metainfo = dict(classes={_literal(converted.classes)}, palette=None)
model = {changes!r}
train_dataloader = {dataset('train_dataloader', 'train')}
val_dataloader = {dataset('val_dataloader', 'val')}
test_dataloader = {dataset('test_dataloader', test)}
val_evaluator = {evaluator('val_evaluator', 'val')}
test_evaluator = {evaluator('test_evaluator', test)}
"""


def _depth(dataloader: dict, key: str, config_file: Path) -> int:
    """How many data sets lie in each other in a loader."""
    chain = dataset_chains(dataloader)[0]
    if joined := next((dataset for dataset in chain if 'datasets' in dataset), None):
        raise ValueError(f'{config_file} has several data sets in {key} ({joined.get("type")}); expected one, to be replaced by the data')
    return len(chain)


def _evaluator(evaluator: dict | None, split: str, images: Path, whole: bool = True) -> str:
    """An evaluator with its files: those of segments where it has the folder of their PNGs, else those of things."""
    evaluator = evaluator or {}
    of_segments = 'seg_prefix' in evaluator
    parts = [f'{key}={_literal(value)}' for key, value in evaluator.items() if whole and key not in ('ann_file', 'seg_prefix')]
    if not whole or 'ann_file' in evaluator:  # others have no data of their own
        parts.append(f"ann_file=data_root + 'annotations/{SEGMENTS if of_segments else ''}{split}.json'")
    if of_segments:
        parts.append(f'seg_prefix={_literal(f"{images}/")}')
    return f'dict({", ".join(parts)})'


@dataclass
class _Converted:
    classes: tuple[str, ...]
    image_root: str
    num_stuff: int


def _read_converted(train: Path) -> _Converted:
    """What configs need of a file that ``write_coco`` wrote."""
    if not train.is_file():
        raise FileNotFoundError(f'{train} does not exist; expected a folder that tools/convert_dataset.py wrote')
    if not is_converted(train):
        raise ValueError(f'{train} was not written by tools/convert_dataset.py, or is damaged; convert the data set first')
    content = json.loads(train.read_bytes())
    try:
        classes, image_root = tuple(category['name'] for category in content['categories']), content['info']['image_root']
        num_stuff = sum(not category.get('isthing', 1) for category in content['categories'])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{train} is not whole ({type(error).__name__}: {error}); convert the data set again') from error
    if not isinstance(image_root, str) or '\0' in image_root or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{train} holds no class names and image_root; convert the data set again')
    return _Converted(classes, image_root, num_stuff)


def _literal(value: object) -> str:
    """A Python literal without braces in its texts: mmengine would take double ones for a variable to substitute."""
    if isinstance(value, dict):
        return f'{{{", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_literal, value))}]'
    return repr(value).replace('{', '\\x7b')


def _panoptic_class_changes(model: dict, num_classes: int, num_stuff: int, config_file: Path) -> dict:
    """The numbers of classes of a panoptic model: which are of all and which of things alone, its own numbers say."""
    own = dict(_numbers(model))
    things, stuff = own.get('num_things_classes'), own.get('num_stuff_classes')
    if things is None or stuff is None:
        raise ValueError(f'{config_file} has no num_things_classes and num_stuff_classes in its model; is it a panoptic config?')
    if not stuff and num_stuff:
        raise ValueError(f'{config_file} has no stuff (num_stuff_classes=0), the data set {num_stuff} classes of it; give the model some')
    numbers = dict(num_things_classes=num_classes - num_stuff, num_stuff_classes=num_stuff)

    def changed(key: str, value: object) -> int | None:
        if key != 'num_classes':
            return numbers.get(key)
        if value not in (things, things + stuff):
            raise ValueError(
                f'{config_file} has num_classes={value!r} in its model; expected {things} (its things) or {things + stuff} (with stuff)'
            )
        return num_classes if value == things + stuff else num_classes - num_stuff

    return _changes(model, changed)


def _numbers(model: dict) -> Iterator[tuple[str, int]]:
    """The numbers of things and of stuff, wherever they stand in a model."""
    for key, value in model.items():
        if key in ('num_things_classes', 'num_stuff_classes'):
            yield key, value
        elif isinstance(value, dict):
            yield from _numbers(value)


def _changes(model: dict, changed) -> dict:
    """The nested dict that sets what ``changed(key, value)`` says in a model's heads; lists (cascades) are given whole."""
    changes = {}
    for key, value in model.items():
        if key == 'rpn_head':  # objects against background, whatever the data
            continue
        if (number := changed(key, value)) is not None:
            changes[key] = number
        elif isinstance(value, dict) and (inner := _changes(value, changed)):
            changes[key] = inner
        elif isinstance(value, list) and any(isinstance(item, dict) and _changes(item, changed) for item in value):
            changes[key] = [_merged(item, _changes(item, changed)) if isinstance(item, dict) else item for item in value]
    return changes


def _merged(model: dict, changes: dict) -> dict:
    changed = {key: _merged(model[key], value) if isinstance(value, dict) else value for key, value in changes.items()}
    return {**model, **changed}
