"""The one form that data sets of every layout are read into."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
EXIF_ORIENTATION, EXIF_TURNED = 274, (5, 6, 7, 8)  # turned by 90 degrees: width and height change places
EXIF_SAME_SIZE = (2, 3, 4)  # mirrored, or turned by 180 degrees
TURNED = 'EXIF turns or mirrors the image (kept: look whether its boxes were drawn on what is shown)'
BOX_TWICE = 'box given twice in its image (kept once)'
LISTED_TWICE = 'image listed more than once (joined)'
LARGEST_FILE = 32 << 20  # bytes; a million boxes, which no image has
SPLIT_NAMES = {'train': 'train', 'training': 'train', 'test': 'test'} | dict.fromkeys(
    ('val', 'valid', 'validation', 'dev', 'eval', 'evaluation'), 'val'
)


@dataclass
class Box:
    """One object, in pixels of the image as it is shown (EXIF rotation applied).

    Attributes:
        is_crowd: a region that is neither an object nor background; not trained on, ignored in evaluation.
        area: of the object's mask where the source gives one; otherwise the box's.
        segment_id: of the box's pixels in the image's ``segment_map``.
        mask: of a thing among segments, (H, W) as COCO's compressed run lengths.
    """

    class_name: str
    x: float
    y: float
    w: float
    h: float
    is_crowd: bool = False
    area: float | None = None
    segment_id: int | None = None
    mask: dict | None = None


@dataclass
class ImageRecord:
    """One image with its objects; ``split`` is 'train', 'val' or 'test', or None when the data set does not say.

    In panoptic data ``boxes`` are those of all segments, stuff among them, and ``segment_map`` is the PNG of their ids.
    """

    path: Path
    width: int
    height: int
    boxes: list[Box]
    split: str | None = None
    segment_map: Path | None = None


@dataclass
class DatasetRecords:
    """What was read from a folder.

    Attributes:
        layout: 'COCO', 'VOC', 'YOLO' or 'COCO panoptic'.
        classes: names in the order of the source; in panoptic data things first.
        stuff: the last of ``classes``, which are regions and not counted.
        division: how training and validation images were drawn apart, where the source does not say: ``val_fraction`` and ``seed``.
        notes: what was left out or changed, and why -> where.
    """

    layout: str
    classes: list[str]
    images: list[ImageRecord] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    stuff: list[str] = field(default_factory=list)
    division: dict | None = None
    _added: dict = field(default_factory=dict, init=False, repr=False, compare=False)  # by path and split

    @property
    def is_panoptic(self) -> bool:
        return any(image.segment_map for image in self.images)

    def note(self, reason: str, where: object) -> None:
        self.notes.setdefault(reason, []).append(printable(where))

    def check_some_used(self, used: int, listed: int, where: object) -> None:
        """Refuse what lists images of which none could be used: another split would be divided, or evaluated on, in its place.

        Args:
            used: how many of them were added.
            where: the file or folder that lists them.

        Raises:
            ValueError: when none was; the notes say why.
        """
        if listed and not used:
            reasons = '; '.join(f'{reason}: {len(places)}, the last: {places[-1]}' for reason, places in self.notes.items())
            raise ValueError(
                f'{where}: none of its {listed} images could be used ({reasons}). Expected some, or another split would take their place; '
                'unpack them, or take this split out of the data set'
            )

    def class_counts(self, split: str | None = None) -> Counter:
        return Counter(box.class_name for image in self.images if split in (None, image.split) for box in image.boxes)

    def add_image(
        self, path: Path, boxes_of, split: str | None, stated_size: tuple[int, int] | None = None, segment_map: Path | None = None
    ) -> None:
        """Measure an image and add it, or note why it is left out. What is new about one that its split has already joins the first.

        Args:
            boxes_of: called with (width, height); returns the boxes, not yet clipped, or None to leave the image out.
            stated_size: (width, height) that the annotation claims; a file of another size has other coordinates.
        """
        if not is_file(path):
            return self.note('image file missing', path)
        try:
            (width, height), orientation = _size_and_orientation(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return self.note('image not readable', f'{path} ({error})')
        except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
            return self.note('image not readable', f'{path} ({type(error).__name__}: {error})')
        if stated_size and stated_size != (width, height):
            stated = 'x'.join(map(str, stated_size))
            return self.note('size in the annotation differs from the image (left out)', f'{path}: {stated}, it is {width}x{height}')
        found = boxes_of(width, height)
        if found is None:
            return None
        boxes = [kept for box in found if (kept := self._clipped(box, width, height, path))]
        if boxes and (orientation in EXIF_SAME_SIZE or (orientation in EXIF_TURNED and not stated_size)):
            self.note(TURNED, f'{path}: orientation {orientation}')
        by_place = {(box.class_name, box.x, box.y, box.w, box.h, box.is_crowd, box.segment_id): box for box in boxes}
        if len(by_place) < len(boxes):
            self.note(BOX_TWICE, f'{path}: {len(boxes) - len(by_place)} of {len(boxes)}')
            boxes = list(by_place.values())
        record = ImageRecord(path, width, height, boxes, split, segment_map)
        first = self._added.setdefault((os.path.abspath(path), split), record)
        if first is record:
            self.images.append(record)
        elif segment_map:  # ids of two maps cannot be joined
            self.note('image listed more than once (the first is kept)', path)
        else:
            self.note(LISTED_TWICE, path)
            first.boxes += [box for box in boxes if box not in first.boxes]

    def _clipped(self, box: Box, width: int, height: int, path: Path) -> Box | None:
        """The part of a box inside its image, if at least one pixel is left."""
        x0, y0 = max(box.x, 0.0), max(box.y, 0.0)
        x1, y1 = min(box.x + box.w, width), min(box.y + box.h, height)
        where = f'{path.name}: {box.class_name} {box.x:g} {box.y:g} {box.w:g} {box.h:g}'
        is_finite = all(map(isfinite, (box.x, box.y, box.w, box.h)))  # an infinite side would be cut to the image's
        if not (is_finite and round(x1 - x0, 3) >= 1 and round(y1 - y0, 3) >= 1):  # as it is written; fractions of YOLO are not exact
            self.note('box smaller than a pixel, outside its image, or not a number', where)
            return None
        if max(x0 - box.x, y0 - box.y, box.x + box.w - x1, box.y + box.h - y1) > 1:
            self.note('box clipped to its image (kept)', where)
        area = None if box.area is None else min(box.area, (x1 - x0) * (y1 - y0))
        return replace(box, x=x0, y=y0, w=x1 - x0, h=y1 - y0, area=area)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) as OpenCV, and so mmdet, shows the image, from its header.

    Raises:
        OSError: when it cannot be read as an image.
    """
    return _size_and_orientation(path)[0]


def _size_and_orientation(path: Path) -> tuple[tuple[int, int], int]:
    """``image_size``, and how EXIF has OpenCV turn or mirror what is stored, from 1 (not at all) to 8."""
    with Image.open(path) as image:
        orientation = 1
        if exif_bytes := image.info.get('exif'):  # getexif() would decode a whole PNG, and knows rotations that OpenCV ignores
            exif = Image.Exif()
            exif.load(exif_bytes)
            orientation = exif.get(EXIF_ORIENTATION, 1)
        return image.size[::-1] if orientation in EXIF_TURNED else image.size, orientation


def split_of(*names: str) -> str | None:
    """'train', 'val' or 'test' if a name says so: ``instances_train2017``, ``TestAnnotations``, ``valset`` and ``eval`` do."""
    words = [word for name in names for word in re.split(r'[\W_]+|(?<=[a-z0-9])(?=[A-Z])', name)]
    parts = [word.lower().strip('0123456789').removesuffix('set') for word in words]
    return next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), None)


def folders_of(source: Path, path: Path) -> tuple[str, ...]:
    """Names of the folders a file lies in, the innermost first; not the data set's own name, nor where it happens to lie."""
    return path.relative_to(source).parts[-2::-1]


def image_files(folder: Path) -> Iterator[Path]:
    """All images below a folder in a fixed order; links are followed, hidden folders are not entered."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        real = os.path.realpath(place)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        yield from (Path(place) / name for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'))


def read_text(path: Path) -> str:
    """Text of an annotation file, with or without a byte order mark."""
    return path.read_text(encoding='utf-8-sig', errors='replace')


def is_too_large(records: DatasetRecords, path: Path) -> bool:
    """Whether the file of one image is larger than any real one; then this is noted."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        records.note(f'annotation file of one image larger than {LARGEST_FILE >> 20} MiB (left out)', f'{path}: {size >> 20} MiB')
    return size > LARGEST_FILE


def is_file(path: Path) -> bool:
    """As ``path.is_file()``, also for names that no file system takes (too long, with a NUL character)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def printable(value: object) -> str:
    """Text for a terminal and a UTF-8 file, whatever a file's name holds: control characters and lone surrogates are written out."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape', 'surrogatepass').decode() for c in str(value))


def leaves(name: str) -> bool:
    """Whether a relative file name points outside of its folder."""
    return os.path.isabs(name) or os.path.normpath(name).startswith('..')
