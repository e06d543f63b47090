"""YOLO: a data.yaml (or classes.txt, obj.names) and one text file of ``class cx cy w h`` lines an image."""

import reprlib
from pathlib import Path

import yaml

from ..records import LISTED_TWICE, Box, DatasetRecords, folders_of, image_files, is_file, is_too_large, read_text, split_of

KEYS = {'train': ('train',), 'val': ('val', 'valid'), 'test': ('test',)}
BAD_LINE = 'line is not "class cx cy w h"'
BAD_LONG_LINE = BAD_LINE + ', nor a polygon of three points or more in fractions of the image (of keypoints? The yaml then needs kpt_shape)'
FRACTIONS = (-0.05, 1.05)  # of the image; points of polygons are drawn a little beyond it


def find(source: Path) -> Path | None:
    """The file that describes the data set."""
    for path in sorted((*source.glob('*.yaml'), *source.glob('*.yml'))):
        text = read_text(path)
        if 'names' in text and 'train' in text:
            content = _load(path)
            if isinstance(content, dict) and 'names' in content and 'train' in content:
                return path
    return next((path for name in ('classes.txt', 'obj.names') if (path := source / name).is_file()), None)


def read(source: Path, description: Path) -> DatasetRecords:
    if description.suffix in ('.yaml', '.yml'):
        content = _load(description)
        names = _names(content['names'], description)
    else:
        content = _lists_beside(source, description)
        names = {index: line.strip() for index, line in enumerate(read_text(description).splitlines()) if line.strip()}
    if not isinstance(content.get('path'), (str, type(None))):
        raise ValueError(f'"path" in {description} must be a folder, got {reprlib.repr(content["path"])}')
    records = DatasetRecords('YOLO', list(dict.fromkeys(names[index] for index in sorted(names))))
    has_keypoints = 'kpt_shape' in content
    for split, paths in _splits(records, source, content, description).items():
        before = len(records.images)
        for path in paths:
            records.add_image(path, _reader(records, source, path, names, has_keypoints), split)
        records.check_some_used(len(records.images) - before, len(paths), f'{split or "images"} in {description}')
    return records


def _lists_beside(source: Path, description: Path) -> dict[str, str]:
    """Darknet's lists of images; beside a classes.txt a train.txt may be the label file of an image."""
    lists = {key: f'{key}.txt' for keys in KEYS.values() for key in keys if is_file(source / f'{key}.txt')}
    return lists if description.name == 'obj.names' and 'train' in lists else {}


def _splits(records: DatasetRecords, source: Path, content: dict, description: Path) -> dict[str | None, list[Path]]:
    """Images by split, each once."""
    splits: dict[str | None, list[Path]] = {}
    if not content:  # neither a yaml nor lists: what the folders' names tell
        for path in image_files(source):
            splits.setdefault(split_of(*folders_of(source, path)), []).append(path)
        return splits
    for split, keys in KEYS.items():
        entries = [(key, entry) for key in keys for entry in _as_list(content.get(key))]
        splits[split] = _listed(records, source, content, entries, split, description)
        if entries and not splits[split] and split != 'test':
            key, entry = entries[0]
            raise ValueError(
                f'{description} names {reprlib.repr(entry)} for {key}, where there is no image. Expected some, or another split would '
                'take their place; unpack them, or take the entry out'
            )
    return splits


def _as_list(entries) -> list:
    return entries if isinstance(entries, list) else [entries] if entries else []


def _listed(
    records: DatasetRecords, source: Path, content: dict, entries: list[tuple[str, str]], split: str, description: Path
) -> list[Path]:
    """Images of a split by the keys and entries of the yaml, each once."""
    found: dict[Path, None] = {}
    for key, entry in entries:
        if not isinstance(entry, str):
            raise ValueError(f'{description} has {reprlib.repr(entry)} for {key}; expected a folder or a list of images')
        paths = _image_paths(source, content, entry, description)
        if paths is None and split != 'test':
            raise ValueError(f'{description} names {entry!r} for {key}, which is neither a folder nor a list of images in {source}')
        if not paths:
            records.note('split that is not there' if paths is None else 'folder or list without images', f'{key}: {entry}')
        for path in paths or ():
            if path in found:
                records.note(LISTED_TWICE, path)
            found[path] = None
    return list(found)


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone, and each written out: a few lines of aliases of aliases stand for more than fits into memory."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError('aliases (*name) are not taken; write the value out')
        return super().compose_node(parent, index)


def _load(path: Path):
    try:
        return yaml.load(read_text(path), _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:  # dates, numbers, nesting
        raise ValueError(f'{path} is not valid YAML ({type(error).__name__}: {error})') from error


def _names(names, path: Path) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) and _is_name(value) for key, value in names.items()):
        raise ValueError(f'"names" in {path} must be a list of names, or numbers with names, got {reprlib.repr(names)}')
    if any(isinstance(value, bool) for value in names.values()):
        raise ValueError(f'"names" in {path} has words that YAML reads as true or false (on, off, yes, no); put them in quotes')
    return {key: str(value) for key, value in names.items()}


def _is_name(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 10**18)  # Python refuses to write thousands of digits


def _image_paths(source: Path, content: dict, entry: str, description: Path) -> list[Path] | None:
    """Images of a split: of a folder, or listed in a text file. None when it is not there.

    ``path`` is relative to wherever training was started in some tools, to the yaml in others, and often another machine's; so what lies
    inside of the data set comes first: the entry without its leading dots, and of an absolute one ever shorter ends.
    """
    parts = [part for part in Path(entry).parts if part not in ('..', '.', '/')]
    base = source / (content.get('path') or '.')
    ends = len(parts) if Path(entry).is_absolute() else 1
    for place in (*(source.joinpath(*parts[i:]) for i in range(max(ends, 1))), base / entry, description.parent / entry):
        if is_file(place) and place.suffix == '.txt':
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            return [_listed_image(line, (place.parent, base, source), source) for line in lines]
        if _is_folder(place) and (parts or place == source):
            return list(image_files(place))
    return None


def _listed_image(line: str, folders: tuple[Path, ...], source: Path) -> Path:
    """The last try is for lists that start in the folder above, as Darknet's do with ``data/obj/a.jpg``."""
    parts = Path(line).parts
    above = [source.joinpath(*parts[1:])] if parts[1:] and parts[0] in ('data', source.resolve().name) else []
    return next((path for path in (*(folder / line for folder in folders), *above) if is_file(path)), source / line)


def _label_file(source: Path, image: Path) -> Path | None:
    """Beside ``images/`` in ``labels/``, or beside the image itself."""
    inside = image.is_relative_to(source)
    parts = list(image.relative_to(source).parts if inside else image.parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == 'images'), default=None)
    candidates = [image.with_suffix('.txt')]
    if at is not None:
        parts[at] = 'labels'
        candidates.insert(0, (source.joinpath(*parts) if inside else Path(*parts)).with_suffix('.txt'))
    else:
        candidates.append(source / 'labels' / image.with_suffix('.txt').name)
    return next((path for path in candidates if is_file(path)), None)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _reader(records: DatasetRecords, source: Path, image: Path, names: dict[int, str], has_keypoints: bool):
    def boxes_of(width: int, height: int) -> list[Box] | None:
        label_file = _label_file(source, image)
        if label_file is None:
            records.note('no label file (kept as an image without objects)', image)
            return []
        if is_too_large(records, label_file):
            return None
        boxes = []
        for number, line in enumerate(read_text(label_file).splitlines(), start=1):
            if line.strip():
                box = _parse(records, line.split(), names, has_keypoints, width, height, f'{label_file}:{number}')
                boxes += [box] if box else []
        return boxes

    return boxes_of


def _parse(records, values: list[str], names: dict[int, str], has_keypoints: bool, width: int, height: int, where: str) -> Box | None:
    try:
        index, numbers = int(float(values[0])), [float(value) for value in values[1:]]
    except (ValueError, OverflowError):
        return records.note(BAD_LINE, f'{where}: {" ".join(values):.60}')
    if has_keypoints:
        numbers = numbers[:4]
    if len(numbers) >= 6:  # a polygon: its bounding box
        # numbers of keypoints (with visibility 2), or of a box with confidence and track, look the same but for their range
        if len(numbers) % 2 or not all(FRACTIONS[0] <= value <= FRACTIONS[1] for value in numbers):
            return records.note(BAD_LONG_LINE, f'{where}: {" ".join(values):.60}')
        xs, ys = numbers[0::2], numbers[1::2]
        numbers = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    if len(numbers) not in (4, 5):  # a fifth is a confidence
        return records.note(BAD_LINE, f'{where}: {" ".join(values):.60}')
    if index not in names:
        return records.note('class number is not in names', f'{where}: {index}')
    cx, cy, w, h = (value * side for value, side in zip(numbers, (width, height, width, height)))
    return Box(names[index], cx - w / 2, cy - h / 2, w, h)
