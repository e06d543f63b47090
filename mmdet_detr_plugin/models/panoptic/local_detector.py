"""LocalDETR with a mask for each query: panoptic or instance segmentation that short schedules and small data suffice for."""

from collections.abc import Sequence
from functools import partial

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import at_least_float32
from ...registry import MODELS
from ..local_detr.detector import LocalDETR
from ..local_detr.head import LocalDETRHead, Outputs, View
from ..local_detr.pyramid_encoder import PyramidEncoder
from .mask_head import BoxMaskHead
from .segments import with_stuff_objects
from .with_masks import Findings, WithMasks, gather_queries

LEVEL = 2  # of the memory, stride 16: where masks begin


@MODELS.register_module()
class PanopticLocalDETR(WithMasks, LocalDETR):
    """``LocalDETR`` that finds things and stuff, and predicts a mask for each query from its box and the memory.

    In training only the masks of the last layer's matched queries are computed; when predicting, only those that a result asks for.
    Segments are made of the detections: of each query the class that it is surest of.

    Args:
        backbone: config; returns feature maps at strides 4, 8, 16 and 32.
        neck: config of a ``PyramidEncoder`` for these four.
        bbox_head: config of a ``LocalDETRHead``, for things and stuff: ``num_classes`` is their sum.
        mask_head: config of a ``BoxMaskHead``.
        num_things_classes: labels below this are things.
        num_stuff_classes: labels of stuff follow; 0 for instance segmentation.
        test_cfg: beside the head's ``max_per_img``: ``panoptic_on`` and ``instance_on``, which results to make (default: both);
            ``score_thr``, what a detection must score to make a segment (default: 0.4; scores are the IoUs that the boxes should have).
        kwargs: ``LocalDETR``'s.

    Raises:
        ValueError: when classes do not add up, or parts do not fit.
    """

    default_test_cfg = dict(panoptic_on=True, instance_on=True, score_thr=0.4)

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        mask_head: dict,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        test_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        of_masks, rest = self._split_test_cfg(test_cfg)
        super().__init__(backbone, neck, bbox_head, test_cfg=rest, **kwargs)
        self._add_masks(mask_head, num_things_classes, num_stuff_classes, of_masks)
        parts = (self.neck, PyramidEncoder), (self.bbox_head, LocalDETRHead), (self.mask_head, BoxMaskHead)
        if not all(isinstance(part, kind) for part, kind in parts):
            raise ValueError(
                'PanopticLocalDETR needs a PyramidEncoder, a LocalDETRHead and, for its masks, a BoxMaskHead, got '
                + ', '.join(type(part).__name__ for part, _ in parts)
            )
        self._check_masks()
        if set(self.mask_head.in_channels) != {self.neck.embed_dims}:
            raise ValueError(
                f'mask_head.in_channels is {self.mask_head.in_channels}; all levels of the memory have neck.embed_dims = '
                f'{self.neck.embed_dims} channels'
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector and the masks, by name; mmengine sums them."""
        samples = with_stuff_objects(batch_data_samples, self.num_things_classes, self.bbox_head.num_classes)
        memory, view = self._memory_of(batch_inputs, samples)
        step = self.bbox_head.matched_losses(memory, view, samples)
        masks_of = partial(self._masks_of, step.outputs, memory, view)
        return step.losses | self._mask_losses(samples, step.pairs, masks_of, batch_inputs.shape[-2:], step.num_objects)

    def _masks_of(self, outputs: Outputs, memory: Sequence[Tensor], view: View, image: Tensor, query: Tensor) -> Tensor:
        """Masks (P, H/4, W/4) of some queries, in their order: by image."""
        hidden_states, boxes, chosen = gather_queries(image, query, outputs.hidden_states, outputs.boxes[-1])
        return self._masks(hidden_states, boxes, memory, view, chosen)

    def _masks(
        self, hidden_states: Tensor, boxes_cxcywh_norm: Tensor, memory: Sequence[Tensor], view: View, chosen: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) and (B, T, 4) -> (P, H/4, W/4), of the chosen ones."""
        hidden_states = hidden_states.to(memory[LEVEL].dtype)  # an export's may differ
        return self.mask_head(hidden_states, boxes_cxcywh_norm * view.scale, memory[LEVEL], memory[: LEVEL + 1], chosen)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with predictions; in the original images' pixels with ``rescale``.

        ``pred_panoptic_seg.sem_seg`` (1, H, W): label + 1000 x instance, ``num_classes`` where nothing is. ``pred_instances``: things
        alone, ``bboxes`` in xyxy, ``scores``, ``labels``, and ``masks`` (N, H, W) with ``instance_on``, best first.
        """
        memory, view = self._memory_of(batch_inputs, batch_data_samples)
        outputs = self.bbox_head(memory, view)
        metas = [sample.metainfo for sample in batch_data_samples]
        instances, queries = self.bbox_head.ranked(outputs.logits, outputs.boxes, metas, rescale)
        findings = []
        for found, of_image, repeats in zip(instances, queries, repeated(queries), strict=True):
            is_sure = (found.scores > self.score_thr) & ~repeats
            findings.append(Findings(found, of_image, of_image[is_sure], found.labels[is_sure]))
        masks_of = partial(self._masks_of, outputs, memory, view)
        return self._add_results(batch_data_samples, findings, outputs.logits.shape[2], masks_of, batch_inputs.shape[-2:], rescale)

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """As ``LocalDETR.detect``, and of each pair: whether its query has a better one (B, n), 0 or 1, which makes no segment then, and
        mask logits (B, n, H/4, W/4).
        """
        memory, view = self._memory_of_sizes(batch_inputs, sizes)
        outputs = self.bbox_head(memory, view)
        *found, queries = self.bbox_head.best_pairs(outputs.logits[-1], outputs.boxes[-1])
        hidden_states, boxes = (
            x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1])) for x in (outputs.hidden_states, outputs.boxes[-1])
        )
        masks = self._masks(hidden_states, boxes, memory, view).unflatten(0, queries.shape)
        return *found, repeated(queries).to(found[1].dtype), at_least_float32(masks)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (L, B, Q, K), boxes_cxcywh_norm (L, B, Q, 4), and mask logits (B, Q, H/4, W/4) of the last layer."""
        memory, view = self._memory_of(batch_inputs, batch_data_samples)
        outputs = self.bbox_head(memory, view)
        masks = self._masks(outputs.hidden_states, outputs.boxes[-1], memory, view)
        return outputs.logits, outputs.boxes, masks.unflatten(0, outputs.hidden_states.shape[:2])


def repeated(queries: Tensor) -> Tensor:
    """(B, n) -> (B, n), True where the same query has come before."""
    number = torch.arange(queries.shape[1], device=queries.device)
    return ((queries[:, :, None] == queries[:, None]) & (number[:, None] > number)).any(-1)
