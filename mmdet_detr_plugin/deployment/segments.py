"""Instances and segments from the masks of an exported file, with numpy and OpenCV alone; what PyTorch's post-processing gives."""

from dataclasses import dataclass

import cv2
import numpy as np

INSTANCE_OFFSET = 1000  # mmdet's
SMALLEST = 5  # pixels of a segment


@dataclass(frozen=True)
class Sizes:
    """(height, width) of the padded batch, of an image in it, and of that image as it was."""

    batch: tuple[int, int]
    img: tuple[int, int]
    ori: tuple[int, int]


def at_img_size(logits: np.ndarray, sizes: Sizes) -> np.ndarray:
    """(P, h, w) -> (P, H, W) of the image in the batch, bilinear."""
    height, width = sizes.img
    found = np.empty((len(logits), height, width), dtype=np.float32)
    for number, mask in enumerate(logits):
        found[number] = cv2.resize(mask, sizes.batch[::-1], interpolation=cv2.INTER_LINEAR)[:height, :width]
    return found


def nearest(image: np.ndarray, size: tuple[int, int], offset: float = 0.0) -> np.ndarray:
    """(H, W) scaled as torch's interpolation does it: ``nearest``, or with 0.5, by the centres of pixels, ``nearest-exact``."""
    rows, columns = (
        np.minimum(np.floor((np.arange(new, dtype=np.float32) + np.float32(offset)) * np.float32(old / new)).astype(int), old - 1)
        for old, new in zip(image.shape, size, strict=True)
    )
    return image[rows[:, None], columns]


def instance_masks(logits: np.ndarray, sizes: Sizes) -> np.ndarray:
    """(P, h, w) -> (P, *ori) of bool."""
    found = np.empty((len(logits), *sizes.ori), dtype=bool)
    for number in range(len(logits)):
        found[number] = nearest(at_img_size(logits[number : number + 1], sizes)[0] > 0, sizes.ori)
    return found


def panoptic_map(logits: np.ndarray, labels: np.ndarray, sizes: Sizes, num_things: int, num_classes: int) -> np.ndarray:
    """Segments that do not overlap; see ``mmdet_detr_plugin.models.panoptic.post_processing.panoptic_map``.

    Args:
        logits: (P, h, w) of the queries that are sure of an object.
        labels: (P,).

    Returns:
        (H, W) of int32, ``ori``: label + 1000 x number of the thing; ``num_classes`` where nothing is.
    """
    logits, is_first_pass = at_img_size(logits, sizes), True
    while len(logits):
        owner = logits.argmax(0)
        if is_first_pass:
            owner = _first_of_same_stuff(labels, num_things)[owner]
        owner = nearest(owner, sizes.ori, offset=0.5)
        is_large = np.bincount(owner.ravel(), minlength=len(labels)) >= SMALLEST
        if is_large.all():
            is_thing = labels < num_things
            return (labels + INSTANCE_OFFSET * is_thing * is_thing.cumsum())[owner].astype(np.int32)
        logits, labels, is_first_pass = logits[is_large], labels[is_large], False
    return np.full(sizes.ori, num_classes, dtype=np.int32)


def _first_of_same_stuff(labels: np.ndarray, num_things: int) -> np.ndarray:
    same = (labels[:, None] == labels) & (labels >= num_things)
    return (same | np.eye(len(labels), dtype=bool)).argmax(1)
