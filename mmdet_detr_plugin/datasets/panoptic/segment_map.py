"""The map of an image's segments, read and checked."""

from collections.abc import Collection

import numpy as np
from mmengine.fileio import get

from .segment_ids import decode_png


def read_segment_map(path: str, shape: tuple[int, int], segment_ids: Collection[int], backend_args: dict | None = None) -> np.ndarray:
    """The (H, W) map of segment ids, int32, in a PNG file.

    Args:
        shape: (H, W) that it must have.
        segment_ids: which it must hold; others are left to the caller.
        backend_args: of mmengine's file backend.

    Raises:
        ValueError: when the file is missing, no PNG of ids, of another size, or lacks a segment.
    """
    try:
        ids = decode_png(get(path, backend_args=backend_args))
    except (OSError, ValueError) as error:
        what = 'is missing' if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(
            f"The PNG of segments {path} {what}. Expected a PNG of segment ids (R + 256 G + 65536 B), under the annotation's file_name in "
            'the folder of data_prefix.seg (seg_prefix in evaluation).'
        ) from error
    if ids.shape != tuple(shape):
        raise ValueError(
            f'The PNG of segments {path} is {ids.shape[1]} x {ids.shape[0]} pixels (width x height), its image {shape[1]} x {shape[0]}. '
            'Expected equal sizes: is it the PNG of another image?'
        )
    if segment_ids and (absent := sorted(set(segment_ids) - set(np.unique(ids).tolist()))):
        shown = ', '.join(map(str, absent[:6])) + (', ...' if len(absent) > 6 else '')
        raise ValueError(
            f'The PNG of segments {path} has no pixel of {len(absent)} segments that the annotation file lists: {shown}. Is it the PNG of '
            'another image? Correct its file_name, or remove the segments from segments_info.'
        )
    return ids
