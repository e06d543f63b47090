"""From files and pixels to the network's input, as mmdet does it, with numpy and OpenCV alone.

The same numbers, bit for bit, as ``LoadImageFromFile``, ``Resize`` and ``DetDataPreprocessor`` give.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3), BGR, uint8: grey becomes three channels, 16 bits become 8, transparency is dropped, EXIF's rotation is followed.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no image that OpenCV can read.
    """
    content = np.fromfile(path, dtype=np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if pixels is None:
        raise ValueError(f'{path} is no image that OpenCV can read, or is damaged')
    return pixels


def check_pixels(pixels: np.ndarray, name: str) -> np.ndarray:
    """An image as ``read_image`` gives it, or a ValueError."""
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        got = f'{pixels.dtype} of shape {pixels.shape}' if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f'{name} must be a uint8 array (height, width, 3) of BGR pixels, as cv2.imread returns it, got {got}')
    return pixels


def resized_shape(height: int, width: int, resize: dict | None) -> tuple[int, int]:
    """Height and width after resizing.

    Raises:
        ValueError: when nothing of a side would be left.
    """
    if resize is None:
        return height, width
    if not resize['keep_ratio']:
        new_width, new_height = resize['scale']
        return new_height, new_width
    long, short = max(resize['scale']), min(resize['scale'])
    factor = min(long / max(height, width), short / min(height, width))
    new_height, new_width = int(height * float(factor) + 0.5), int(width * float(factor) + 0.5)
    if not (new_height and new_width):
        raise ValueError(
            f'an image of {width} x {height} pixels would become {new_width} x {new_height} when its longer side is fitted to {long}: '
            'cut it into pieces'
        )
    return new_height, new_width


def prepare(pixels: np.ndarray, preprocess: dict) -> np.ndarray:
    """(H, W, 3), BGR, uint8 -> (3, h, w) float32, resized and normalised."""
    height, width = resized_shape(*pixels.shape[:2], preprocess['resize'])
    if preprocess['resize'] is not None:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    if preprocess['channels'] == 'RGB':
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(preprocess[name], dtype=np.float32)[:, None, None] for name in ('mean', 'std'))
    return (pixels.transpose(2, 0, 1).astype(np.float32) - mean) / std


def collate(images: Sequence[np.ndarray], preprocess: dict) -> tuple[np.ndarray, np.ndarray]:
    """Images (3, h, w) padded at the bottom and right to one size -> (B, 3, H, W) float32, and (B, 2) int64, heights and widths without
    padding.
    """
    divisor = preprocess['pad_size_divisor']
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64)
    height, width = (-(-int(side) // divisor) * divisor for side in sizes.max(axis=0))
    batch = np.full((len(images), 3, height, width), preprocess['pad_value'], dtype=np.float32)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
