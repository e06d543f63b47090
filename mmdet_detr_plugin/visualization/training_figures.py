"""One image's figures for a look into a training."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from torch import nn

from ..devices import to_host
from .attention import AttentionRecord
from .attention_figures import cross_figure, regions_figure
from .image_attention import image_attention, shown_first
from .panels import BoxMark, Panel, colour_of, draw_panels, reduced


def training_figures(
    model: nn.Module,
    record: AttentionRecord | None,
    sample: DetDataSample,
    pixels: np.ndarray,
    name: str,
    classes: Sequence[str],
    score_thr: float,
    top: int,
) -> Iterator[tuple[str, Figure]]:
    """Figures with their names: detections of any detector, and, with a record, all queries' boxes and the attention.

    Args:
        record: of the pass that gave ``sample``; None for models whose attention cannot be recorded.
        sample: ``pred_instances`` in pixels of the original image.
        pixels: the original image, (height, width, 3), RGB, uint8.
        score_thr: see ``shown_first``.
        top: see ``shown_first``.
    """
    yield 'detections', _detections_figure(sample, pixels, name, classes, score_thr, top)
    if record is None:
        return
    image = image_attention(model, record, sample, pixels, name, classes, score_thr, top)
    boxes = [BoxMark(box, '#FFFFFF', style='faint') for box in image.all_boxes]
    boxes += [BoxMark(box, colour_of(number)) for number, box in reversed(list(enumerate(image.boxes[-1])))]
    panel = Panel(f'{len(image.all_boxes)} queries; in colour: the best', boxes=boxes, lit=(0, 0, 0, 0))
    yield 'queries', draw_panels(reduced(pixels), [[panel]], f'{name}: boxes of all queries', image_size=pixels.shape[:2])
    if record.cross:
        yield 'attention', cross_figure(image, [image.num_layers - 1])
    else:
        yield 'attention', regions_figure(image, [image.num_layers - 1])


def _detections_figure(sample: DetDataSample, pixels: np.ndarray, name: str, classes: Sequence[str], score_thr: float, top: int) -> Figure:
    found = sample.pred_instances
    found = found[shown_first(found.scores, score_thr, top)]
    rows = list(zip(to_host(found.bboxes.detach()), found.labels.tolist(), found.scores.tolist()))
    marks = [
        BoxMark(box, colour_of(label), f'{classes[label]} {score:.2f}', 'solid' if score >= score_thr else 'dashed')
        for box, label, score in rows
    ]
    above = sum(score >= score_thr for _, _, score in rows)
    title = f'{above} of at least {score_thr:g}' + (f', dashed: others of the best {len(rows)}' if above < len(rows) else '')
    return draw_panels(reduced(pixels), [[Panel(title, boxes=marks[::-1])]], f'{name}: detections', image_size=pixels.shape[:2])
