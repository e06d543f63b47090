"""Pascal VOC: one XML file an image, splits in ImageSets/Main."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..records import IMAGE_SUFFIXES, Box, DatasetRecords, folders_of, is_file, is_too_large, read_text, split_of

SPLIT_OF_LIST = {'trainval': None, 'test': 'test', 'val': 'val', 'train': 'train'}


def find(source: Path) -> list[Path]:
    """The XML files of the first place that has any."""
    for pattern in ('Annotations/*.xml', 'annotations/*.xml', '*.xml', 'annotations/xmls/*.xml', '*/*.xml', '*/[Aa]nnotations/*.xml'):
        if files := sorted(source.glob(pattern)):
            return files
    return []


def read(source: Path, files: list[Path]) -> DatasetRecords:
    records = DatasetRecords('VOC', [])
    lists = _lists(records, source, {path.stem for path in files})
    listed = {name: SPLIT_OF_LIST[path.stem] for path, names in lists.items() for name in names}
    used = set()
    for path in files:
        if listed and path.stem not in listed:
            records.note('not listed in ImageSets/Main (left out)', path)
            continue
        split = listed[path.stem] if listed else split_of(*folders_of(source, path))
        if split and not listed:
            lists.setdefault(path.parent, []).append(path)
        root = _parse(records, path)
        if root is not None:
            before = len(records.images)
            image_path = _image_path(source, path, root.findtext('filename') or '')
            records.add_image(image_path, _reader(records, root, path), split, _stated_size(root))
            used |= {path, path.stem} if len(records.images) > before else set()
    for place, names in lists.items():
        records.check_some_used(len(used & set(names)), len(names), place)
    records.classes = sorted(records.class_counts())
    return records


def _lists(records: DatasetRecords, source: Path, stems: set[str]) -> dict[Path, list[str]]:
    """What each file in ImageSets/Main lists; where an image is in several, the last one counts."""
    lists = {}
    for name in SPLIT_OF_LIST:
        for path in source.glob(f'ImageSets/Main/{name}.txt'):
            names = [line.split()[0] for line in read_text(path).splitlines() if line.split()]
            for missing in sorted(set(names) - stems):
                records.note('listed in ImageSets/Main, without an XML file', f'{path.name}: {missing}')
            if name != 'test' or stems & set(names):  # a test set without ground truth is of no use anyway
                lists[path] = names
    return lists


def _parse(records: DatasetRecords, path: Path) -> ElementTree.Element | None:
    if is_too_large(records, path):
        return None
    raw = path.read_bytes()
    if b'\0' in raw or b'<!DOCTYPE' in raw or b'<!ENTITY' in raw:
        # Entity expansion can fill the memory, and VOC files have no use for it. It could not be seen here in UTF-16 or UTF-32, which have
        # zero bytes with and without a byte order mark; every other encoding that expat takes writes these words as ASCII does.
        return records.note('XML in UTF-16, with a document type or with entities is refused', path)
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return records.note('XML not readable', f'{path} ({error})')


def _image_path(source: Path, xml_path: Path, file_name: str) -> Path:
    """By the XML's own name first: ``filename`` often is stale. Never with folders, so never outside of the data set."""
    stated = Path(file_name.replace('\\', '/')).name
    names = [*(xml_path.stem + suffix for suffix in (*IMAGE_SUFFIXES, '.JPG', '.JPEG', '.PNG')), *([stated] if stated else [])]
    folders = (source / 'JPEGImages', source / 'images', xml_path.parent.parent / 'images', xml_path.parent, source)
    candidates = [folder / name for name in names for folder in folders]
    return next((path for path in candidates if is_file(path)), folders[0] / (stated or names[0]))


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        size = int(float(root.findtext('size/width'))), int(float(root.findtext('size/height')))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if all(side > 0 for side in size) else None


def _reader(records: DatasetRecords, root: ElementTree.Element, path: Path):
    def boxes_of(width: int, height: int) -> list[Box]:
        boxes = []
        for number, item in enumerate(root.iter('object'), start=1):
            where, name = f'{path.name}: object {number}', (item.findtext('name') or '').strip()
            try:
                x0, y0, x1, y1 = (float(item.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
            except (TypeError, ValueError):
                records.note('object without xmin, ymin, xmax, ymax', where)
                continue
            if not name:
                records.note('object without a name', where)
                continue
            difficult = (item.findtext('difficult') or '').strip() == '1'
            if difficult:
                records.note('difficult object (kept as a region to ignore, as VOC evaluates it)', where)
            # VOC counts pixels from 1 and includes the last one.
            boxes.append(Box(name, x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1, is_crowd=difficult))
        return boxes

    return boxes_of
