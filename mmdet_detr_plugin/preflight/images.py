"""Image files: there, readable, as large as stated, listed once."""

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..datasets.records import image_size
from .finding import ERROR, NOTE, WARNING, Finding, part
from .splits import Split

SAMPLE = 300  # images of a split that are decoded, or all when there are fewer
SECONDS = 10.0  # for decoding, for each split


def check_files(split: Split) -> list[Finding]:
    """Missing files and file names that are listed twice."""
    names, findings = split.annotations.file_names, []
    if missing := _missing(split.image_dir, names):
        what = f'{split.name}: {part(len(missing), len(names), "image files")} are missing, the first: {split.image_dir / missing[0]}'
        there = 'is there' if split.image_dir.is_dir() else 'is not there'
        advice = f'set data_root and data_prefix.img (the folder {split.image_dir} {there}), or remove these images from the file'
        findings.append(Finding('data', ERROR, what, advice))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        what = f'{split.name}: {len(twice)} image files are listed more than once, the first: {twice[0]}'
        findings.append(
            Finding('data', WARNING, what, 'their objects are counted, trained and evaluated more than once; list each file once')
        )
    return findings


def check_segment_files(name: str, folder: Path, names: Sequence[str], setting: str) -> list[Finding]:
    """PNGs of panoptic segments that are missing.

    Args:
        name: whose they are, for people.
        names: of the files in ``folder``.
        setting: of the config, that names the folder.
    """
    missing = _missing(folder, names)
    if not missing:
        return []
    what = f'{name}: {part(len(missing), len(names), "PNGs of segments")} are missing, the first: {folder / missing[0]}'
    there = 'is there' if folder.is_dir() else "is not there; COCO's are a zip file within annotations' zip file"
    return [Finding('data', ERROR, what, f'set {setting} (the folder {folder} {there}), or unpack them')]


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    """The names of files that are not there."""
    entries: dict[str, set[str]] = {}
    missing = []
    for name in names:
        inner, base = os.path.split(name)
        if inner not in entries:  # one listing of a folder instead of a question for each file
            entries[inner] = _entries(folder / inner)
        if base not in entries[inner]:
            missing.append(name)
    return missing


def check_sample(split: Split, seconds: float = SECONDS) -> list[Finding]:
    """Decode a fixed random sample: broken files, and sizes other than stated."""
    numbers = random.Random(0).sample(range(split.num_images), min(SAMPLE, split.num_images))
    end, checked, broken, other_size = time.monotonic() + seconds, 0, [], []
    for number in numbers:
        path = split.image_path(number)
        if not path.is_file():  # reported above
            continue
        if time.monotonic() > end:
            break
        checked += 1
        try:
            size = _decoded_size(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            broken.append(f'{path} ({error})')
            continue
        stated = tuple(split.annotations.sizes_wh[number])
        if size != stated:
            other_size.append(f'{path} is {size[0]} x {size[1]}, stated {stated[0]:g} x {stated[1]:g}')
    return _sample_findings(split, checked, broken, other_size)


def _sample_findings(split: Split, checked: int, broken: list[str], other_size: list[str]) -> list[Finding]:
    findings = []
    if broken:
        what = f'{split.name}: {len(broken)} of {checked} decoded images cannot be read, the first: {broken[0]}'
        findings.append(
            Finding('data', ERROR, what, 'training stops at them, or sees grey pixels: replace them or remove them from the file')
        )
    if other_size:
        what = f'{split.name}: {len(other_size)} of {checked} decoded images have another size than stated, the first: {other_size[0]}'
        advice = 'boxes belong to the stated size: turned by EXIF or resized later? Correct width, height and boxes in the annotation file'
        findings.append(Finding('data', ERROR, what, advice))
    if checked < split.num_images and not broken and not other_size:
        what = f'{split.name}: {checked} of {split.num_images} images were decoded, none is broken or of another size than stated'
        advice = 'a sample (or all that exist): for certainty, tools/convert_dataset.py measures every image'
        findings.append(Finding('data', NOTE, what, advice))
    return findings


def _decoded_size(path: Path) -> tuple[int, int]:
    size = image_size(path)
    with Image.open(path) as image:
        image.load()  # the header says nothing about pixels that are cut off
    return size


def _entries(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
