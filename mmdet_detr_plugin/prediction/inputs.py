"""What a user names, as a stream of images: files, folders, patterns, videos."""

import glob
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np

from ..datasets.records import IMAGE_SUFFIXES, image_files

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


@dataclass
class Frame:
    """An image, or why there is none.

    Attributes:
        name: the file's path as it is reported; of a video's frame ``video.mp4#12``.
        source: the file.
        number: of a video's frame, from 0; None for an image.
        pixels: (H, W, 3), BGR, uint8, turned as its EXIF entry says; None where it could not be read.
        problem: then the reason.
    """

    name: str
    source: Path
    number: int | None = None
    pixels: np.ndarray | None = None
    problem: str | None = None


def find_inputs(inputs: Sequence[str], outputs: Sequence[Path] = ()) -> list[Path]:
    """Image and video files, in a fixed order, each once.

    Args:
        inputs: files (of any suffix), folders (searched through, images and videos by suffix) and patterns such as ``'shots/*.jpg'``.
        outputs: folders that results go to: what a search from outside finds in them is of an earlier run, and left out with a warning.

    Raises:
        FileNotFoundError: for an input that does not exist, or a pattern that fits nothing.
        ValueError: for a folder without an image or video, and when only earlier results are found.
    """
    found: dict[Path, None] = {}
    earlier: set[Path] = set()
    outputs = [folder.resolve() for folder in outputs]
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = [*image_files(path), *(file for file in sorted(path.rglob('*')) if file.suffix.lower() in VIDEO_SUFFIXES)]
            if not files:
                raise ValueError(
                    f'the folder {name} holds no image ({", ".join(IMAGE_SUFFIXES)}) and no video ({", ".join(VIDEO_SUFFIXES)})'
                )
        elif path.is_file():
            files = [path]
        else:
            files = [Path(file) for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]
            if not files:
                raise FileNotFoundError(f'{name} is neither a file nor a folder, and as a pattern it fits no file')
        if not path.is_file() and not _lies_in(_searched_from(path), outputs):
            results = {file for file in files if _lies_in(file, outputs)}
            earlier |= results
            files = [file for file in files if file not in results]
        found.update(dict.fromkeys(files))
    if earlier := earlier - set(found):  # what is named is meant
        few = f'{len(earlier)} files that lie where results go are left out, such as {min(earlier)}; name their folder to take them'
        warnings.warn(few)
    if not found:
        raise ValueError(f'{", ".join(inputs)}: all {len(earlier)} files found lie where results go; name their folder, or another --out')
    return list(found)


def _searched_from(path: Path) -> Path:
    """A folder, or of a pattern the part before what may vary."""
    return next((parent for parent in (path, *path.parents) if not glob.has_magic(str(parent))), path)


def _lies_in(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_frames(path: Path) -> Iterator[Frame]:
    """The image of a file, or the frames of a video; what cannot be read is a frame with a ``problem``."""
    yield from _video_frames(path) if is_video(path) else [_image_frame(path)]


def count_frames(path: Path) -> int:
    """How many frames to expect; a damaged video may have fewer."""
    if not is_video(path):
        return 1
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(0, count)


def _image_frame(path: Path) -> Frame:
    try:
        # as mmdet's LoadImageFromFile: grey becomes three channels, 16 bits become 8, transparency is dropped, EXIF is followed.
        # Pipelines with another color_type or imdecode_backend are refused (pipeline.py).
        pixels = mmcv.imfrombytes(path.read_bytes(), flag='color', backend='cv2')
    except (OSError, cv2.error, ValueError) as error:
        return Frame(str(path), path, problem=f'cannot be read: {type(error).__name__}: {error}')
    if pixels is None:
        return Frame(str(path), path, problem='is no image that OpenCV can read, or is damaged')
    return Frame(str(path), path, pixels=pixels)


def _video_frames(path: Path) -> Iterator[Frame]:
    video = cv2.VideoCapture(str(path))
    expected, number = count_frames(path), 0
    try:
        while True:
            there, pixels = video.read()
            if not there:
                break
            yield Frame(f'{path}#{number}', path, number, pixels)
            number += 1
    finally:
        video.release()
    if not number:
        yield Frame(str(path), path, number, problem='no frame of it could be read')
    elif number < expected:
        problem = f'{number} frames could be read, {expected} are announced: it breaks off, or its container counts wrongly'
        yield Frame(str(path), path, number, problem=problem)
