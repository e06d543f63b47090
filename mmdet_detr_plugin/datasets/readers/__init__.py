"""Recognising a data set's layout and reading it. COCO JSON, Pascal VOC XML and YOLO text are known."""

from pathlib import Path

from ..records import DatasetRecords
from . import coco, coco_panoptic, voc, yolo

READERS = {'YOLO': yolo, 'COCO': coco, 'VOC': voc}
LOOKED_FOR = (
    'a YOLO data.yaml with "names" and "train", or classes.txt; COCO JSON files with "images", "annotations" and "categories" in the '
    "folder, its annotations/ or a split's folder; Pascal VOC XML files in the folder, Annotations/ or annotations/"
)
PANOPTIC_READERS = {'COCO panoptic': coco_panoptic}
PANOPTIC_LOOKED_FOR = (
    'JSON files of COCO\'s panoptic format, whose annotations have "segments_info" and the "file_name" of a PNG of segment ids, in the '
    "folder, its annotations/ or a split's folder"
)


def read_dataset(source: Path, panoptic: bool = False) -> DatasetRecords:
    """Recognise the layout of a folder and read it.

    Args:
        panoptic: read segments instead of boxes.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when no layout fits, nothing usable is in it, or a file of the layout is broken; the message says what was looked for.
    """
    if not source.is_dir():
        raise FileNotFoundError(f'{source} is not a folder')
    readers, looked_for = (PANOPTIC_READERS, PANOPTIC_LOOKED_FOR) if panoptic else (READERS, LOOKED_FOR)
    for reader in readers.values():
        if found := reader.find(source):
            records = reader.read(source, found)
            break
    else:
        inner = [folder.name for folder in sorted(source.iterdir()) if folder.is_dir() and any(r.find(folder) for r in readers.values())]
        hint = f' Did you mean {source / inner[0]}?' if inner else ''
        if not panoptic and coco_panoptic.find(source):
            hint = ' It has panoptic segments: convert it with --panoptic, and take a panoptic config.'
        elif panoptic and (boxes := [layout for layout, reader in READERS.items() if reader.find(source)]):
            hint = f' It has boxes ({boxes[0]}), for which there are other configs.'
        raise ValueError(f'{source} has no layout known here. Looked for: {looked_for}.{hint}')
    if not any(image.boxes for image in records.images):
        notes = '; '.join(f'{reason}: {len(where)}, for instance {where[0]}' for reason, where in records.notes.items())
        raise ValueError(f'{source} looks like {records.layout}, but no image with an object could be used. {notes or "It is empty."}')
    _note_shared_images(records)
    return records


def _note_shared_images(records: DatasetRecords) -> None:
    splits: dict[Path, set] = {}
    for image in records.images:
        splits.setdefault(image.path, set()).add(image.split)
    for path, names in splits.items():
        if len(names) > 1:
            records.note('image in several splits (kept, but validation then sees training images)', path)
