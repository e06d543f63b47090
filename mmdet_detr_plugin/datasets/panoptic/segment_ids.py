"""Segment ids in the PNGs of COCO's panoptic format: id = R + 256 G + 65536 B, 0 = void (https://cocodataset.org/#format-data)."""

import cv2
import numpy as np

VOID_ID = 0
LARGEST_ID = 256**3 - 1


def encode_png(ids: np.ndarray) -> bytes:
    """The PNG file of an (H, W) map of segment ids, from 0 to ``LARGEST_ID``."""
    bgr = np.stack((ids >> 16, ids >> 8 & 255, ids & 255), axis=-1).astype(np.uint8)
    is_encoded, content = cv2.imencode('.png', bgr)
    if not is_encoded:
        raise ValueError(f'a map of segments of shape {ids.shape} cannot be a PNG; expected (H, W), not empty')
    return content.tobytes()


def decode_png(content: bytes) -> np.ndarray:
    """The (H, W) map of segment ids, int32, in a PNG file.

    Raises:
        ValueError: for what is no image, or holds no ids; the file is for the caller to name.
    """
    # without a look at EXIF; 16 bits and gray stay what they are
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if image is None:
        raise ValueError('cannot be read as an image')
    if image.dtype != np.uint8 or image.ndim != 3:
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise ValueError(f'has {channels} channel(s) of {image.dtype}; expected the three of RGB, with 8 bits each')
    blue, green, red = (image[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue
