"""Which layout a data set folder has, and reading it into one form. COCO JSON, Pascal VOC XML and YOLO text are known."""

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
EXIF_ORIENTATION, EXIF_TURNED = 274, (5, 6, 7, 8)  # turned by 90 degrees: width and height change places
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


@dataclass
class Box:
    """One object, in pixels of the image as it is shown (EXIF rotation applied)."""

    class_name: str
    x: float
    y: float
    w: float
    h: float
    is_crowd: bool = False


@dataclass
class ImageRecord:
    """One image with its objects; ``split`` is 'train', 'val' or 'test', or None when the data set does not say."""

    path: Path
    width: int
    height: int
    boxes: list[Box]
    split: str | None = None


@dataclass
class DatasetRecords:
    """What was read from a folder.

    Attributes:
        layout: 'COCO', 'VOC' or 'YOLO'.
        classes: names in the order of the source.
        skipped: reason -> examples, everything that was left out.
    """

    layout: str
    classes: list[str]
    images: list[ImageRecord] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, what: str) -> None:
        self.skipped.setdefault(reason, []).append(what)

    def class_counts(self, split: str | None = None) -> Counter:
        return Counter(box.class_name for image in self.images if split in (None, image.split) for box in image.boxes)


def read_dataset(source: Path) -> DatasetRecords:
    """Recognise the layout of a folder and read it.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when no layout fits, or a file of the layout is broken; the message says what was looked for.
    """
    if not source.is_dir():
        raise FileNotFoundError(f'{source} is not a folder')
    readers: tuple[tuple[str, Callable], ...] = (('YOLO', _yolo_file), ('COCO', _coco_files), ('VOC', _voc_files))
    found = {layout: files for layout, find in readers if (files := find(source))}
    if not found:
        raise ValueError(
            f'{source} has no layout known here. Looked for: a YOLO data.yaml with "names" and "train"; COCO JSON files with "images", '
            '"annotations" and "categories" in the folder or its annotations/; Pascal VOC XML files in the folder, Annotations/ or '
            'annotations/.'
        )
    layout = next(iter(found))
    read = {'YOLO': _read_yolo, 'COCO': _read_coco, 'VOC': _read_voc}[layout]
    records = read(source, found[layout])
    if not records.images:
        raise ValueError(
            f'{source} looks like {layout}, but no image could be used. Skipped: '
            + '; '.join(f'{reason} ({len(items)}, e.g. {items[0]})' for reason, items in records.skipped.items())
        )
    return records


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) as the image is shown, from its header.

    Raises:
        OSError: when it cannot be read as an image.
    """
    with Image.open(path) as image:
        turned = image.getexif().get(EXIF_ORIENTATION) in EXIF_TURNED
        return image.size[::-1] if turned else image.size


def _measured(records: DatasetRecords, path: Path) -> tuple[int, int] | None:
    """The image's size, or None after noting why the image is left out."""
    if not path.is_file():
        records.skip('image file missing', str(path))
        return None
    try:
        return image_size(path)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        records.skip('image not readable', f'{path} ({error})')
        return None


def _add_box(records: DatasetRecords, boxes: list[Box], box: Box, width: int, height: int, where: str) -> None:
    """Clip a box to its image and keep it if at least one pixel is left."""
    x0, y0 = max(box.x, 0.0), max(box.y, 0.0)
    x1, y1 = min(box.x + box.w, width), min(box.y + box.h, height)
    if not (x1 - x0 >= 1 and y1 - y0 >= 1):  # also catches NaN
        records.skip('box smaller than a pixel, outside its image, or not a number', f'{where}: {box.x:g} {box.y:g} {box.w:g} {box.h:g}')
        return
    if max(x0 - box.x, y0 - box.y, box.x + box.w - x1, box.y + box.h - y1) > 1:
        records.skip('box clipped to its image (kept)', where)
    boxes.append(Box(box.class_name, x0, y0, x1 - x0, y1 - y0, box.is_crowd))


def _split_of(name: str) -> str | None:
    parts = name.lower().replace('-', '_').split('_')
    return next((SPLIT_NAMES[part.rstrip('0123456789')] for part in parts if part.rstrip('0123456789') in SPLIT_NAMES), None)


# --- YOLO -----------------------------------------------------------------------------------------------------------------------------


def _yolo_file(source: Path) -> Path | None:
    for path in sorted((*source.glob('*.yaml'), *source.glob('*.yml'))):
        content = _load_yaml(path)
        if isinstance(content, dict) and 'names' in content and 'train' in content:
            return path
    return None


def _load_yaml(path: Path):
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error


def _read_yolo(source: Path, yaml_path: Path) -> DatasetRecords:
    content = _load_yaml(yaml_path)
    names = content['names']
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(index, int) and isinstance(name, str) for index, name in names.items()):
        raise ValueError(f'"names" in {yaml_path} must be a list of names, or numbers with names, got {names!r:.200}')
    records = DatasetRecords('YOLO', [names[index] for index in sorted(names)])
    for key, split in (('train', 'train'), ('val', 'val'), ('valid', 'val'), ('test', 'test')):
        entries = content.get(key) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            folder = _yolo_folder(source, content, entry, yaml_path)
            for path in sorted(p for p in folder.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES):
                if size := _measured(records, path):
                    records.images.append(ImageRecord(path, *size, _yolo_boxes(records, path, names, *size), split))
    return records


def _yolo_folder(source: Path, content: dict, entry: str, yaml_path: Path) -> Path:
    # "path" is relative to wherever training was started in some tools, to the yaml in others, and often another machine's.
    candidates = [source / (content.get('path') or '.') / entry, source / entry, source / str(entry).lstrip('./')]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ValueError(f'{yaml_path} names the folder {entry!r}, which is not there; looked in {", ".join(map(str, candidates))}')


def _yolo_boxes(records: DatasetRecords, image: Path, names: dict[int, str], width: int, height: int) -> list[Box]:
    parts = list(image.parts)
    at = max((i for i, part in enumerate(parts[:-1]) if part == 'images'), default=None)
    if at is not None:
        parts[at] = 'labels'
    label_file = Path(*parts).with_suffix('.txt')
    boxes: list[Box] = []
    if not label_file.is_file():
        records.skip('no label file (kept as an image without objects)', str(image))
        return boxes
    for number, line in enumerate(label_file.read_text(errors='replace').splitlines(), start=1):
        where, values = f'{label_file}:{number}', line.split()
        if not values:
            continue
        try:
            index, coordinates = int(float(values[0])), [float(value) for value in values[1:]]
        except (ValueError, OverflowError):
            records.skip('line is not "class cx cy w h"', f'{where}: {line:.60}')
            continue
        if len(coordinates) > 5 and len(coordinates) % 2 == 0:  # a polygon: its bounding box
            xs, ys = coordinates[0::2], coordinates[1::2]
            coordinates = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
        if len(coordinates) not in (4, 5):  # a fifth is a confidence
            records.skip('line is not "class cx cy w h"', f'{where}: {line:.60}')
        elif index not in names:
            records.skip('class number is not in names', f'{where}: {index}')
        else:
            cx, cy, w, h = (value * side for value, side in zip(coordinates, (width, height, width, height)))
            _add_box(records, boxes, Box(names[index], cx - w / 2, cy - h / 2, w, h), width, height, where)
    return boxes


# --- COCO -----------------------------------------------------------------------------------------------------------------------------


def _coco_files(source: Path) -> list[Path]:
    files = []
    for path in sorted((*source.glob('*.json'), *source.glob('annotations/*.json'), *source.glob('*/_annotations.coco.json'))):
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f'{path} is not valid JSON: {error}') from error
        is_detection = isinstance(content, dict) and {'images', 'annotations', 'categories'} <= set(content)
        if is_detection and not any(isinstance(a, dict) and 'segments_info' in a for a in content['annotations'][:1]):
            files.append(path)
    return files


def _read_coco(source: Path, files: list[Path]) -> DatasetRecords:
    records = DatasetRecords('COCO', [])
    for path in files:
        content = json.loads(path.read_text())
        try:
            names = {category['id']: category['name'] for category in content['categories']}
            images = {image['id']: image for image in content['images']}
        except (KeyError, TypeError) as error:
            raise ValueError(f'{path}: an image without "id" or a category without "id" and "name" ({error!r})') from error
        records.classes += [name for name in names.values() if name not in records.classes]
        by_image: dict = {}
        for annotation in content['annotations']:
            by_image.setdefault(annotation.get('image_id'), []).append(annotation)
        for image_id in sorted(set(by_image) - set(images), key=str):
            records.skip('annotation of an image that is not listed', f'{path.name}: image_id {image_id}')
        split = _split_of(path.stem) or _split_of(path.parent.name)
        for image_id, image in images.items():
            image_path = _coco_image(source, path, str(image.get('file_name', '')))
            if size := _measured(records, image_path):
                boxes = _coco_boxes(records, path, names, by_image.get(image_id, []), *size)
                records.images.append(ImageRecord(image_path, *size, boxes, split))
    return records


def _coco_image(source: Path, json_path: Path, file_name: str) -> Path:
    split = json_path.stem.removeprefix('instances_')
    folders = (source, source / 'images', source / split, source / 'images' / split, json_path.parent)
    return next((folder / file_name for folder in folders if (folder / file_name).is_file()), source / split / file_name)


def _coco_boxes(records: DatasetRecords, path: Path, names: dict, annotations: list[dict], width: int, height: int) -> list[Box]:
    boxes: list[Box] = []
    for annotation in annotations:
        where = f'{path.name}: annotation {annotation.get("id")}'
        box = annotation.get('bbox')
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)):
            records.skip('annotation without a box of four numbers', where)
        elif annotation.get('category_id') not in names:
            records.skip('category_id is not among the categories', f'{where}: {annotation.get("category_id")}')
        else:
            box = Box(names[annotation['category_id']], *box, is_crowd=bool(annotation.get('iscrowd')))
            _add_box(records, boxes, box, width, height, where)
    return boxes


# --- Pascal VOC -----------------------------------------------------------------------------------------------------------------------


def _voc_files(source: Path) -> list[Path]:
    for folder in (source / 'Annotations', source / 'annotations', source):
        if files := sorted(folder.glob('*.xml')):
            return files
    return sorted(source.glob('*/*.xml'))


def _read_voc(source: Path, files: list[Path]) -> DatasetRecords:
    records = DatasetRecords('VOC', [])
    listed = {}
    for split in ('test', 'val', 'train'):
        for path in source.glob(f'ImageSets/Main/{split}.txt'):
            listed.update({line.split()[0]: split for line in path.read_text().splitlines() if line.split()})
    for path in files:
        root = _parse_xml(records, path)
        if root is None:
            continue
        image_path = _voc_image(source, path, root.findtext('filename') or '')
        if size := _measured(records, image_path):
            split = listed.get(path.stem) or (_split_of(path.parent.name) if path.parent.parent == source else None)
            records.images.append(ImageRecord(image_path, *size, _voc_boxes(records, path, root, *size), split))
    records.classes = sorted(records.class_counts())
    return records


def _parse_xml(records: DatasetRecords, path: Path) -> ElementTree.Element | None:
    text = path.read_text(errors='replace')
    if '<!DOCTYPE' in text or '<!ENTITY' in text:  # entity expansion can fill the memory, and VOC files have no use for it
        records.skip('XML with a document type or entities is refused', str(path))
        return None
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        records.skip('XML not readable', f'{path} ({error})')
        return None


def _voc_image(source: Path, xml_path: Path, file_name: str) -> Path:
    name = Path(file_name.replace('\\', '/')).name  # without folders: never outside of the data set
    folders = (source / 'JPEGImages', source / 'images', source, xml_path.parent)
    names = [name, *(xml_path.stem + suffix for suffix in IMAGE_SUFFIXES)]
    candidates = [folder / candidate for candidate in names if candidate for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _voc_boxes(records: DatasetRecords, path: Path, root: ElementTree.Element, width: int, height: int) -> list[Box]:
    boxes: list[Box] = []
    for number, item in enumerate(root.iter('object'), start=1):
        where, name = f'{path.name}: object {number}', (item.findtext('name') or '').strip()
        try:
            x0, y0, x1, y1 = (float(item.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
        except (TypeError, ValueError):
            records.skip('object without xmin, ymin, xmax, ymax', where)
            continue
        if not name:
            records.skip('object without a name', where)
            continue
        # VOC counts pixels from 1 and includes the last one.
        box = Box(name, x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)
        _add_box(records, boxes, box, width, height, where)
    return boxes
