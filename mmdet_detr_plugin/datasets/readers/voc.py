"""Pascal VOC: one XML file an image, splits in ImageSets/Main."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ..records import IMAGE_SUFFIXES, Box, DatasetRecords, folders_of, is_file, is_too_large, read_text, split_of

PLACES = ('Annotations/*.xml', 'annotations/*.xml', '*.xml', 'annotations/xmls/*.xml', '*/*.xml', '*/[Aa]nnotations/*.xml')
SPLIT_OF_LIST = {'trainval': None, 'test': 'test', 'val': 'val', 'train': 'train'}


def find(source: Path) -> list[Path]:
    """The XML files of the first place that has any."""
    return next((files for place in PLACES if (files := sorted(source.glob(place)))), [])


def read(source: Path, files: list[Path]) -> DatasetRecords:
    records = DatasetRecords('VOC', [])
    others = {path for place in PLACES for path in source.glob(place)} - set(files)
    for path in sorted(others):
        if not any(name.startswith('.') for name in folders_of(source, path)):
            records.note('XML file elsewhere than those that are read (left out)', path)
    homes: dict[Path, list[Path]] = {}
    for path in files:
        above = path.parent.parent  # as VOCdevkit/VOC2007
        own = above != source and above.is_relative_to(source) and (above / 'ImageSets' / 'Main').is_dir()
        homes.setdefault(above if own else source, []).append(path)
    for home, paths in homes.items():
        _read_home(records, source, home, paths)
    records.classes = sorted(records.class_counts())
    return records


def _read_home(records: DatasetRecords, source: Path, home: Path, files: list[Path]) -> None:
    """Read the XML files that the lists of a folder divide, or else the names of folders."""
    lists = _lists(records, home, files)
    listed = {path: SPLIT_OF_LIST[place.stem] for place, paths in lists.items() for path in paths}
    used = set()
    for path in files:
        if listed and path not in listed:
            records.note('not listed in ImageSets/Main (left out)', path)
            continue
        split = listed[path] if listed else split_of(*folders_of(source, path))
        if split and not listed:
            lists.setdefault(path.parent, []).append(path)
        root = _parse(records, path)
        if root is not None:
            before = len(records.images)
            image_path = _image_path(source, path, root.findtext('filename') or '')
            records.add_image(image_path, _reader(records, root, path), split, _stated_size(root))
            used |= {path} if len(records.images) > before else set()
    for place, paths in lists.items():
        records.check_some_used(len(used & set(paths)), len(paths), place)


def _lists(records: DatasetRecords, home: Path, files: list[Path]) -> dict[Path, list[Path | None]]:
    """The XML file of each line in ImageSets/Main, None where it is missing; of an image in several lists the last one counts."""
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    lists = {}
    for name in SPLIT_OF_LIST:
        for place in home.glob(f'ImageSets/Main/{name}.txt'):
            paths = []
            for line in filter(str.strip, read_text(place).splitlines()):
                found = next((by_stem[stem] for stem in _stems(line.strip()) if stem in by_stem), None)
                if found is None:
                    records.note('listed in ImageSets/Main, without an XML file', f'{place.name}: {line.strip()}')
                paths += found or [None]
            if name != 'test' or any(paths):  # a test set without ground truth is of no use anyway
                lists[place] = paths
    return lists


def _stems(line: str) -> Iterator[str]:
    """What an XML file of a line may be called: names hold blanks and dots, and lines folders, endings, or a column of -1, 0 or 1."""
    columns = line.rsplit(maxsplit=1)
    for text in (line, *(columns[:1] if columns[-1] in ('-1', '0', '1') else ())):
        name = text.replace('\\', '/').rpartition('/')[2]
        yield name
        if name.lower().endswith((*IMAGE_SUFFIXES, '.xml')):
            yield name.rpartition('.')[0]


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
    above = xml_path.parent.parent
    folders = [source / 'JPEGImages', source / 'images', above / 'images', xml_path.parent, source]
    if above.is_relative_to(source):
        folders.insert(0, above / 'JPEGImages')  # of VOCdevkit/VOC2007
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
