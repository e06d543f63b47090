"""Boxes that cannot be learned or found: no numbers, no area, outside of their image, smaller than what the network can see."""

import numpy as np

from .finding import ERROR, NOTE, WARNING, Finding, part
from .image_sizes import output_sizes
from .splits import Split

SMALL = 8  # pixels at the model's input: half a cell of DETR-DC5's memory, a quarter of DETR's
TOLERANCE = 1.0  # pixels by which a box may reach beyond its image: rounding
DROP = 'remove or correct them; tools/convert_dataset.py leaves such boxes out, clips the others and lists both'


def check_boxes(split: Split, pipeline: list) -> list[Finding]:
    """Boxes of a split's classes.

    Args:
        pipeline: that of evaluation, whose resizing says how large objects are for the model.
    """
    found = split.annotations
    chosen = np.flatnonzero((split.labels >= 0) & (found.image >= 0))
    boxes_xywh_abs, sizes_wh = found.boxes_xywh_abs[chosen], found.sizes_wh[found.image[chosen]]
    is_box = ~np.isnan(boxes_xywh_abs).all(axis=1)  # no four numbers at all: a fault of the file, reported with it
    is_number = np.isfinite(boxes_xywh_abs).all(axis=1)
    sides = boxes_xywh_abs[:, 2:].min(axis=1, initial=np.inf)
    is_flat = is_number & (sides <= 0)
    is_thin = is_number & (sides > 0) & (sides < 1)
    top_left, bottom_right = boxes_xywh_abs[:, :2], boxes_xywh_abs[:, :2] + boxes_xywh_abs[:, 2:]
    has_size = is_number & (sides > 0) & (sizes_wh > 0).all(axis=1)
    inside_wh = np.minimum(bottom_right, sizes_wh) - np.maximum(top_left, 0)
    is_outside = has_size & (inside_wh <= 0).any(axis=1)
    beyond = np.maximum(-top_left, bottom_right - sizes_wh).max(axis=1, initial=0)
    is_over_edge = has_size & ~is_outside & (beyond > TOLERANCE)
    is_without_area = is_number & (sides >= 1) & ~is_outside & (found.areas[chosen] <= 0)
    dropped = 'mmdet leaves them out of training in silence, and evaluation counts them as objects that nobody can find'
    rows = [
        (is_box & ~is_number, ERROR, 'hold NaN or infinity', f'losses become NaN, or objects vanish; {DROP}'),
        (is_flat, WARNING, 'are degenerate (width or height zero or negative)', f'{dropped}; {DROP}'),
        (is_thin, WARNING, 'are thinner than 1 pixel', f'{dropped}; {DROP}'),
        (is_outside, WARNING, 'lie outside of their image', f'{dropped}; {DROP}, or the stated image sizes'),
        (is_over_edge, WARNING, f'reach more than {TOLERANCE:g} pixel beyond their image', f'DETR predicts boxes inside the image; {DROP}'),
        (is_without_area, WARNING, 'have an "area" of zero or less', f'{dropped}; write width x height, or the area of the mask'),
    ]
    findings = []
    for mask, severity, what, advice in rows:
        if count := int(mask.sum()):
            first = chosen[int(np.argmax(mask))]
            values = ', '.join(f'{value:g}' for value in found.boxes_xywh_abs[first])
            example = f'the first: [{values}], {found.where(first)}'
            findings.append(Finding('data', severity, f'{split.name}: {part(count, len(chosen), "boxes")} {what}; {example}', advice))
    usable = has_size & ~is_thin & ~is_outside & split.is_object[chosen]
    return findings + _small_at_input(split, pipeline, boxes_xywh_abs[usable], sizes_wh[usable], chosen[usable])


def _small_at_input(split: Split, pipeline: list, boxes_xywh_abs: np.ndarray, sizes_wh: np.ndarray, numbers: np.ndarray) -> list[Finding]:
    """Objects whose shorter side has less than 1, and less than ``SMALL``, pixels after the pipeline."""
    if not len(numbers):
        return []
    width, height = output_sizes(pipeline, (sizes_wh[:, 0], sizes_wh[:, 1]))[-1]
    sides = np.minimum(boxes_xywh_abs[:, 2] * width / sizes_wh[:, 0], boxes_xywh_abs[:, 3] * height / sizes_wh[:, 1])
    larger = 'evaluate and train at a larger scale (Resize in the pipelines), or cut the images into tiles'
    findings = []
    if count := int((sides < 1).sum()):
        smallest = int(np.argmin(sides))
        example = f'the smallest: {sides[smallest]:.2g}, {split.annotations.where(numbers[smallest])}'
        what = f'{split.name}: {part(count, len(sides), "objects")} are smaller than 1 pixel after the resizing of evaluation; {example}'
        findings.append(Finding('data', WARNING, what, f'no model can find them; {larger}'))
    if count := int(((sides >= 1) & (sides < SMALL)).sum()):
        what = (
            f'{split.name}: {part(count, len(sides), "objects")} have a side of less than {SMALL} pixels after the resizing of evaluation'
        )
        findings.append(Finding('data', NOTE, what, f"expect a low AP S from maps at stride 16 or 32 (DETR's); {larger}"))
    return findings
