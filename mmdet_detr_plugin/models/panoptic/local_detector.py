"""LocalDETR with a mask for each query: panoptic or instance segmentation that short schedules and small data suffice for."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import at_least_float32
from ...registry import MODELS
from ..local_detr.detector import LocalDETR
from ..local_detr.head import LocalDETRHead
from ..local_detr.outputs import Outputs, View
from ..local_detr.pyramid_encoder import PyramidEncoder
from ..parts import build_model_part
from ..set_criterion import average_over_ranks
from .mask_head import BoxMaskHead
from .mask_queries import MaskQueries, covered_share, gather, merged, repeated, stuff_owners
from .segments import with_stuff_objects
from .stuff_head import StuffHead
from .with_masks import Findings, WithMasks, gather_queries, last_matches

LEVEL = 2  # of the memory, stride 16: where masks begin


@MODELS.register_module()
class PanopticLocalDETR(WithMasks, LocalDETR):
    """``LocalDETR`` that finds things and stuff, and predicts a mask for each query from its box and the memory.

    In training only the masks of the last layer's matched queries are computed; when predicting, only those that a result asks for.
    Segments are made of the detections, of each query the class that it is surest of; and with a ``stuff_head`` of the classes of stuff
    that it finds, each of which has a query of its own, so that the detector is left to the things.

    Args:
        backbone: config; returns feature maps at strides 4, 8, 16 and 32.
        neck: config of a ``PyramidEncoder`` for these four.
        bbox_head: config of a ``LocalDETRHead``, for things and stuff: ``num_classes`` is their sum, of
            which a ``stuff_head`` leaves those of stuff without use.
        mask_head: config of a ``BoxMaskHead``.
        num_things_classes: labels below this are things.
        num_stuff_classes: labels of stuff follow; 0 for instance segmentation.
        stuff_head: config of a ``StuffHead``; None to detect stuff as things are.
        test_cfg: beside the head's ``max_per_img``: ``panoptic_on`` and ``instance_on``, which results to make (default: both);
            ``score_thr``, what a detection must score to make a segment (default: 0.4; scores are the IoUs that the boxes should have, and
            probabilities of stuff).
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
        stuff_head: dict | None = None,
        test_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        of_masks, rest = self._split_test_cfg(test_cfg)
        super().__init__(backbone, neck, bbox_head, test_cfg=rest, **kwargs)
        self._add_masks(mask_head, num_things_classes, num_stuff_classes, of_masks)
        self.stuff_head = None
        if stuff_head and num_stuff_classes:
            self.stuff_head = build_model_part(copy.deepcopy(stuff_head) | dict(num_stuff_classes=num_stuff_classes), 'stuff_head')
        parts = (self.neck, PyramidEncoder), (self.bbox_head, LocalDETRHead), (self.mask_head, BoxMaskHead)
        if not all(isinstance(part, kind) for part, kind in parts):
            raise ValueError(
                'PanopticLocalDETR needs a PyramidEncoder, a LocalDETRHead and, for its masks, a BoxMaskHead, got '
                + ', '.join(type(part).__name__ for part, _ in parts)
            )
        self._check_masks()
        stuff_head, dims = self.stuff_head, self.neck.embed_dims
        if stuff_head is not None and not (isinstance(stuff_head, StuffHead) and stuff_head.embed_dims == dims):
            raise ValueError(
                f'stuff_head must be a StuffHead with embed_dims={dims} as the neck has, got {type(stuff_head).__name__} with '
                f'{getattr(stuff_head, "embed_dims", None)}'
            )
        if set(self.mask_head.in_channels) != {self.neck.embed_dims}:
            raise ValueError(
                f'mask_head.in_channels is {self.mask_head.in_channels}; all levels of the memory have neck.embed_dims = '
                f'{self.neck.embed_dims} channels'
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector, of the presence of stuff and of the masks, by name; mmengine sums them."""
        samples = with_stuff_objects(batch_data_samples, self.num_things_classes, self.bbox_head.num_classes)
        memory, view = self._memory_of(batch_inputs, samples)
        step = self.bbox_head.matched_losses(memory, view, samples if self.stuff_head is None else batch_data_samples)
        losses, owners, num_objects = step.losses, last_matches(step.pairs), step.num_objects
        queries, size = self._mask_queries(step.outputs, memory, view), batch_inputs.shape[-2:]
        if queries.stuff is not None:
            image, target, query = stuff_owners(samples, self.num_things_classes)
            covered = covered_share(samples, (image, target, query), size, like=queries.stuff.cells)
            losses = losses | self.stuff_head.loss(queries.stuff, covered)
            owners = merged(owners, (image, target, queries.num_detected + query))
            num_objects = average_over_ranks(num_objects.new_full((), sum(len(sample.gt_instances) for sample in samples)))
        return losses | self._mask_losses(samples, owners, partial(self._masks_of, queries, memory, view), size, num_objects)

    def _mask_queries(self, outputs: Outputs, memory: Sequence[Tensor], view: View) -> MaskQueries:
        stuff = None if self.stuff_head is None else self.stuff_head(memory[LEVEL], view.padding_masks[LEVEL])
        return MaskQueries.of(outputs, stuff)

    def _masks_of(self, queries: MaskQueries, memory: Sequence[Tensor], view: View, image: Tensor, query: Tensor) -> Tensor:
        """Masks (P, H/4, W/4) of some queries, in their order: by image."""
        covered = [] if queries.covered is None else [queries.covered]
        hidden_states, boxes, *covered, chosen = gather_queries(image, query, queries.hidden_states, queries.boxes, *covered)
        return self.masks(hidden_states, boxes, memory, view, chosen, *covered)

    def masks(
        self,
        hidden_states: Tensor,
        boxes_cxcywh_norm: Tensor,
        memory: Sequence[Tensor],
        view: View,
        chosen: Tensor | None = None,
        covered: Tensor | None = None,
    ) -> Tensor:
        """Mask logits (P, H/4, W/4) of the chosen ones of T queries, from (B, T, D), (B, T, 4) and (B, T, N) or None."""
        level = memory[LEVEL]
        hidden_states = hidden_states.to(level.dtype)  # an export's may differ
        covered = None if covered is None else covered.unflatten(-1, level.shape[-2:])
        return self.mask_head(hidden_states, boxes_cxcywh_norm * view.scale, level, memory[: LEVEL + 1], chosen, covered)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with predictions; in the original images' pixels with ``rescale``.

        ``pred_panoptic_seg.sem_seg`` (1, H, W): label + 1000 x instance, ``num_classes`` where nothing is. ``pred_instances``: things
        alone, ``bboxes`` in xyxy, ``scores``, ``labels``, and ``masks`` (N, H, W) with ``instance_on``, best first.
        """
        memory, view = self._memory_of(batch_inputs, batch_data_samples)
        outputs = self.bbox_head(memory, view)
        queries = self._mask_queries(outputs, memory, view)
        metas = [sample.metainfo for sample in batch_data_samples]
        instances, ranked = self.bbox_head.ranked(outputs.logits, outputs.boxes, metas, rescale)
        stuff_scores = at_least_float32(queries.stuff_logits).sigmoid()
        findings = []
        for found, of_image, repeats, of_stuff in zip(instances, ranked, repeated(ranked), stuff_scores, strict=True):
            is_sure = (found.scores > self.score_thr) & ~repeats & self._may_be_segments(found.labels)
            (stuff,) = (of_stuff > self.score_thr).nonzero(as_tuple=True)
            segment_queries = torch.cat((of_image[is_sure], queries.num_detected + stuff))
            labels = torch.cat((found.labels[is_sure], self.num_things_classes + stuff))
            findings.append(Findings(found, of_image, segment_queries, labels))
        masks_of = partial(self._masks_of, queries, memory, view)
        num_queries = queries.hidden_states.shape[1]
        return self._add_results(batch_data_samples, findings, num_queries, masks_of, batch_inputs.shape[-2:], rescale)

    def _may_be_segments(self, labels: Tensor) -> Tensor:
        """Whether detections of these labels may make segments: those of stuff only where stuff has no queries of its own."""
        return labels < (self.bbox_head.num_classes if self.stuff_head is None else self.num_things_classes)

    @property
    def max_per_img(self) -> int:
        """How many rows ``detect`` gives at most."""
        return self.bbox_head.max_per_img + (0 if self.stuff_head is None else self.num_stuff_classes)

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """As ``LocalDETR.detect``, and of each pair: 1 where it makes no segment, because its query has a better one or stuff has queries
        of its own, else 0 (B, n); and mask logits (B, n, H/4, W/4). With a ``stuff_head``, a row for each class of stuff follows: the
        whole image, and the probability that the class is there.
        """
        memory, view = self._memory_of_sizes(batch_inputs, sizes)
        outputs = self.bbox_head(memory, view)
        corners, scores, labels, ranked = self.bbox_head.best_pairs(outputs.logits[-1], outputs.boxes[-1])
        is_no_segment = repeated(ranked) | ~self._may_be_segments(labels)
        queries = self._mask_queries(outputs, memory, view)
        if self.stuff_head is not None:
            stuff_scores = at_least_float32(queries.stuff_logits).sigmoid()
            stuff = torch.arange(self.num_stuff_classes, device=ranked.device).expand(ranked.shape[0], -1)
            corners = torch.cat((corners, corners.new_tensor((0.0, 0.0, 1.0, 1.0)).expand(*stuff.shape, 4)), 1)
            scores = torch.cat((scores, stuff_scores), 1)
            labels = torch.cat((labels, self.num_things_classes + stuff), 1)
            ranked = torch.cat((ranked, queries.num_detected + stuff), 1)
            is_no_segment = torch.cat((is_no_segment, torch.zeros_like(stuff, dtype=torch.bool)), 1)
        hidden_states, boxes, covered = gather((queries.hidden_states, queries.boxes, queries.covered), ranked)
        masks = self.masks(hidden_states, boxes, memory, view, covered=covered).unflatten(0, ranked.shape)
        return corners, scores, labels, is_no_segment.to(scores.dtype), at_least_float32(masks)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, ...]:
        """Class logits (L, B, Q, K), boxes_cxcywh_norm (L, B, Q, 4), mask logits (B, Q + S, H/4, W/4) of the last layer and of stuff, and
        logits (B, S) of the presence of stuff; S is 0 without a ``stuff_head``.
        """
        memory, view = self._memory_of(batch_inputs, batch_data_samples)
        outputs = self.bbox_head(memory, view)
        queries = self._mask_queries(outputs, memory, view)
        masks = self.masks(queries.hidden_states, queries.boxes, memory, view, covered=queries.covered)
        return outputs.logits, outputs.boxes, masks.unflatten(0, queries.hidden_states.shape[:2]), queries.stuff_logits
