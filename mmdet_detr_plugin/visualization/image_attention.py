"""What is shown of one image: its best queries, layer by layer, and their attention.

Letters: L decoder layers, B images, Q queries, S shown queries, N cells of the feature map, K classes, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from ..boxes import cxcywh_to_xyxy
from ..devices import at_least_float32, to_host
from ..models.panoptic.post_processing import instance_masks
from ..prediction.inputs import Frame
from ..prediction.predictor import Predictor
from .attention import AttentionRecord, LayerAttention, record_attention
from .map_geometry import MapGeometry

MOST_SHOWN = 20  # detections of an image


@dataclass
class ImageAttention:
    """One image of a recorded pass. Boxes are xyxy_abs in pixels of the original image.

    Attributes:
        name: how it is reported.
        pixels: (height, width, 3), RGB, uint8.
        geometry: where the feature map lies.
        record: of the batch, in which this image is number ``index``.
        query: (S,), which queries are shown, best first.
        label_names: class of each, the best one in the last layer.
        scores: (L, S), of this class.
        boxes: (L, S, 4).
        regions: (L, S, 4), what each layer looks at; None for models with cross-attention.
        all_boxes: (Q, 4), of all queries in the last layer.
        score_thr: detections from this score on are shown, and others to make up the number.
        masks: (S, height, width) of bool, of the shown queries; None for models without a mask head.
    """

    name: str
    pixels: np.ndarray
    geometry: MapGeometry
    record: AttentionRecord
    index: int
    query: list[int]
    label_names: list[str]
    scores: np.ndarray
    boxes: np.ndarray
    regions: np.ndarray | None
    all_boxes: np.ndarray
    score_thr: float
    masks: np.ndarray | None = None

    @property
    def num_layers(self) -> int:
        return len(self.boxes)

    @property
    def num_above(self) -> int:
        """How many of the shown queries reach the threshold."""
        return int((self.scores[-1] >= self.score_thr).sum())

    def caption(self, number: int, layer: int = -1) -> str:
        """Such as ``2 raccoon 0.93``."""
        return f'{number + 1} {self.label_names[number]} {self.scores[layer, number]:.2f}'

    def cross_weights(self, layer: int, per_head: bool = False) -> np.ndarray:
        """(S, N), or (H, S, N)."""
        return self._rows(self.record.cross[layer], self.query, per_head)

    def query_weights(self, layer: int) -> np.ndarray:
        """(S, S + 1) between the shown queries; the last column is what goes to all others, so that rows have the sum 1."""
        weights = self._rows(self.record.queries[layer], self.query)
        shown = weights[:, self.query]
        return np.concatenate((shown, (1 - shown.sum(1, keepdims=True)).clip(0)), axis=1)

    def encoder_weights(self, layer: int, cells: Sequence[int]) -> np.ndarray:
        """(cells, N)."""
        return self._rows(self.record.encoder[layer], cells)

    def centres(self, number: int) -> list[tuple[float, float]]:
        """Centres (x, y) of the best detections, inside the image."""
        height, width = self.pixels.shape[:2]
        boxes = self.boxes[-1, :number]
        return [(float(np.clip((x0 + x1) / 2, 0, width)), float(np.clip((y0 + y1) / 2, 0, height))) for x0, y0, x1, y1 in boxes]

    def _rows(self, attention: LayerAttention, rows: Sequence[int], per_head: bool = False) -> np.ndarray:
        return to_host(attention.weights(self.index, rows, per_head))


def shown_first(scores: Tensor, score_thr: float, top: int) -> Tensor:
    """Which of (Q,) scores are shown, best first: those of at least ``score_thr``, but ``top`` at least (where there are so many) and
    ``MOST_SHOWN`` at most."""
    count = max(top, min(int((scores >= score_thr).sum()), MOST_SHOWN))
    return scores.argsort(descending=True, stable=True)[:count]


def class_scores(logits: Tensor, num_classes: int) -> Tensor:
    """(..., K) or (..., K+1) with no-object last -> (..., K), as the heads score: sigmoid or softmax."""
    logits = at_least_float32(logits)
    return logits.sigmoid() if logits.shape[-1] == num_classes else logits.softmax(-1)[..., :-1]


def image_attention(
    model: nn.Module,
    record: AttentionRecord,
    sample: DetDataSample,
    pixels: np.ndarray,
    name: str,
    classes: Sequence[str],
    score_thr: float = 0.7,
    top: int = 5,
    index: int = 0,
) -> ImageAttention:
    """Put together what a recorded pass says about one image.

    Args:
        sample: what the model returned for it; ``img_shape`` and ``batch_input_shape`` are used.
        pixels: the original image, (height, width, 3), RGB, uint8.
        score_thr: see ``shown_first``.
        top: see ``shown_first``.
        index: the image's number in the batch.

    Raises:
        ValueError: when scores or boxes are not finite.
    """
    outputs = (record.logits[:, index], record.boxes_cxcywh_norm[:, index])
    if not all(torch.isfinite(output).all() for output in outputs):
        raise ValueError(f'the network gives scores or boxes that are not finite for {name}; was its training stable?')
    scores = class_scores(record.logits[:, index], model.bbox_head.num_classes)  # (L, Q, K)
    best, labels = scores[-1].max(-1)
    query = shown_first(best, score_thr, top)
    labels = labels[query]
    geometry = MapGeometry(tuple(pixels.shape[:2]), tuple(sample.img_shape[:2]), tuple(map(int, sample.batch_input_shape)), record.map_size)
    image_sides, batch_sides = ((width, height) * 2 for height, width in (geometry.image_size, geometry.batch_in_pixels))
    corners = cxcywh_to_xyxy(at_least_float32(record.boxes_cxcywh_norm[:, index])).clamp(0, 1)  # (L, Q, 4), clamped as the heads do
    corners = to_host(corners) * np.array(image_sides)
    chosen = query.tolist()
    regions = None
    if record.regions:
        seen = cxcywh_to_xyxy(torch.stack([at_least_float32(region[index, query]) for region in record.regions]))
        regions = to_host(seen) * np.array(batch_sides)
    masks = None
    if record.mask_sources is not None:
        logits = record.mask_sources.masks(model, index, chosen)
        masks = to_host(instance_masks(logits, geometry.batch_size, geometry.resized_size, geometry.image_size))
    return ImageAttention(
        name=name,
        pixels=pixels,
        geometry=geometry,
        record=record,
        index=index,
        query=chosen,
        label_names=[classes[label] for label in labels.tolist()],
        scores=to_host(scores[:, query, labels]),
        boxes=corners[:, chosen],
        regions=regions,
        all_boxes=corners[-1],
        score_thr=score_thr,
        masks=masks,
    )


def look_at(predictor: Predictor, frame: Frame, score_thr: float = 0.7, top: int = 5) -> ImageAttention | None:
    """Run a predictor on one image and record its attention; None with ``frame.problem`` where it fails.

    Raises:
        ValueError: for a model whose attention cannot be recorded, or whose outputs are not finite.
    """
    with record_attention(predictor.model) as record:
        ((frame, sample),) = predictor([frame])
    if sample is None:
        return None
    pixels = np.ascontiguousarray(frame.pixels[..., ::-1])
    return image_attention(predictor.model, record, sample, pixels, frame.name, predictor.classes, score_thr, top)
