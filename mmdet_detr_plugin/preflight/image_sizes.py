"""How large images leave a pipeline: the resizing transforms of mmcv and mmdet, followed without loading an image.

Crops, mosaics and other transforms count as leaving the scale alone.
"""

from collections.abc import Iterator

import numpy as np

from ..config_files import kind

Sizes = tuple[np.ndarray, np.ndarray]  # widths, heights


def resized(transform: dict, sizes: Sizes) -> list[Sizes]:
    """The sizes that one transform can give: one for most, one for each of several scales; ranges give their two ends.

    Raises:
        KeyError, TypeError: for settings that mmcv would not take either.
    """
    name = kind(transform)
    keep_ratio = transform.get('keep_ratio', False)
    if name in ('RandomChoice', 'TestTimeAug'):
        return [result for branch in transform['transforms'] for result in output_sizes(branch, sizes)]
    if name == 'Resize' and transform.get('scale') is None:
        factor = np.broadcast_to(np.asarray(transform['scale_factor'], dtype=float), 2)
        return [(np.floor(sizes[0] * factor[0] + 0.5), np.floor(sizes[1] * factor[1] + 0.5))]
    if name in ('Resize', 'FixShapeResize', 'FixScaleResize'):
        scale = (transform['width'], transform['height']) if name == 'FixShapeResize' else transform['scale']
        return [_to_scale(sizes, scale, keep_ratio)]
    if name == 'RandomChoiceResize':
        return [_to_scale(sizes, scale, keep_ratio) for scale in _choices(transform)]
    if name == 'RandomResize':
        scale = transform['scale']
        ends = scale if isinstance(scale[0], (list, tuple)) else [scale]
        return [_to_scale(sizes, _times(end, ratio), keep_ratio) for end in ends for ratio in transform.get('ratio_range') or (1.0,)]
    if name == 'ResizeShortestEdge':
        sides = transform['scale'] if isinstance(transform['scale'], (list, tuple)) else [transform['scale']]
        return [_to_scale(sizes, (transform.get('max_size') or 1e9, side), True) for side in sides]
    return [sizes]


def output_sizes(pipeline: list, sizes: Sizes) -> list[Sizes]:
    """What a whole pipeline can give; only the smallest and the largest are followed from one transform to the next."""
    results = [sizes]
    for transform in pipeline:
        results = [result for before in results for result in resized(transform, before)]
        if len(results) > 2:
            results.sort(key=lambda result: float(np.sum(result[0] * result[1])))
            results = [results[0], results[-1]]
    return results


def is_random_in_size(pipeline: list) -> bool:
    """Whether images of one size leave the pipeline in several."""
    random = ('RandomCrop', 'MinIoURandomCrop', 'Expand', 'RandomResize')
    return any(kind(node) in random or (kind(node) == 'RandomChoiceResize' and len(_choices(node)) > 1) for node in _nodes(pipeline))


def _nodes(pipeline: object) -> Iterator[dict]:
    if isinstance(pipeline, dict):
        yield pipeline
        pipeline = pipeline.get('transforms') or ()
    for item in pipeline:
        yield from _nodes(item)


def _choices(transform: dict) -> list:
    return transform['scales'] if isinstance(transform['scales'], list) else [transform['scales']]


def _times(scale: object, ratio: float) -> tuple[float, float]:
    width, height = scale if isinstance(scale, (list, tuple)) else (scale, scale)
    return width * ratio, height * ratio


def _to_scale(sizes: Sizes, scale: object, keep_ratio: bool) -> Sizes:
    """mmcv's ``imrescale`` for (long, short) edges in either order, or a plain resize to (w, h)."""
    width, height = scale if isinstance(scale, (list, tuple)) else (scale, scale)
    if not keep_ratio:
        return np.full_like(sizes[0], width), np.full_like(sizes[1], height)
    factor = np.minimum(max(width, height) / np.maximum(*sizes), min(width, height) / np.minimum(*sizes))
    return np.floor(sizes[0] * factor + 0.5), np.floor(sizes[1] * factor + 0.5)
