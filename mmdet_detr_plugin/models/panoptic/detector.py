"""DETR with a mask head: panoptic segmentation, or instance segmentation without stuff classes (paper, section 4.4)."""

from collections.abc import Sequence
from functools import partial

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import at_least_float32
from ...registry import MODELS
from ..detector import DETR, padding_mask_of_sizes
from ..detr_head import DETRHead
from ..targets import collate_targets
from ..transformer_neck import Encoded, TransformerNeck
from .segments import with_stuff_objects
from .with_masks import Findings, WithMasks, gather_queries, last_matches


@MODELS.register_module()
class PanopticDETR(WithMasks, DETR):
    """DETR that also predicts a mask for each query.

    In training only the matched queries' masks are computed, which are all that the losses look at; when predicting, only those that a
    result asks for. Both give what computing all of them gives.

    Args:
        backbone: config; returns feature maps at strides 4, 8, 16 and that of the transformer.
        neck: config of a ``TransformerNeck``.
        bbox_head: config of a ``DETRHead``, for things and stuff: ``num_classes`` is their sum.
        mask_head: config of a ``DETRMaskHead``; None to train the boxes of things and stuff alone (the paper's first stage).
        num_things_classes: labels below this are things.
        num_stuff_classes: labels of stuff follow; 0 for instance segmentation.
        freeze_detector: train the mask head alone, on a detector that ``load_from`` brings (the paper's second stage). The detector's
            dropout stays on in training, as in the official code; norms of its backbone do not learn.
        test_cfg: beside the head's ``max_per_img``: ``panoptic_on`` and ``instance_on``, which results to make (default: both);
            ``score_thr``, what a query must be sure of to make a segment (default: 0.85, as in the official code).
        kwargs: ``DETR``'s.

    Raises:
        ValueError: when classes do not add up, or parts do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        mask_head: dict | None = None,
        freeze_detector: bool = False,
        test_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        of_masks, rest = self._split_test_cfg(test_cfg)
        super().__init__(backbone, neck, bbox_head, test_cfg=rest, **kwargs)
        self._add_masks(mask_head, num_things_classes, num_stuff_classes, of_masks)
        self.freeze_detector = freeze_detector
        self._check_panoptic_parts()
        if freeze_detector:
            for part in (self.backbone, self.neck, self.bbox_head, self.training_aids):
                part.requires_grad_(False)

    def _check_panoptic_parts(self) -> None:
        if not (isinstance(self.neck, TransformerNeck) and isinstance(self.bbox_head, DETRHead)):
            raise ValueError(
                f"PanopticDETR needs the plugin's TransformerNeck and DETRHead, got {type(self.neck).__name__} and "
                f'{type(self.bbox_head).__module__}.{type(self.bbox_head).__name__}'
            )
        self._check_masks()
        if self.mask_head is None and self.freeze_detector:
            raise ValueError('freeze_detector=True without a mask_head leaves nothing to train')

    @property
    def pretrained_prefixes(self) -> tuple[str, ...]:
        """How the names of the frozen weights begin; ``CheckpointFitHook`` refuses a training that has not loaded them."""
        return ('backbone.', 'neck.', 'bbox_head.') if self.freeze_detector else ()  # aids give nothing to the masks

    @property
    def _calls_neck_in_steps(self) -> bool:
        return True

    def train(self, mode: bool = True) -> 'PanopticDETR':
        super().train(mode)
        if self.freeze_detector:
            self.backbone.eval()  # statistics of norms would go on moving otherwise
        return self

    def _encode(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> tuple[Sequence[Tensor], Encoded]:
        """The backbone's feature maps for the mask head, finest first, and the encoder's output."""
        *finer, feats = self.backbone(batch_inputs)
        return finer, self.neck.encode(feats, self._padding_mask(feats, batch_inputs, batch_data_samples))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector, its training aids unless it is frozen, and the masks, by name; mmengine sums them."""
        samples = with_stuff_objects(batch_data_samples, self.num_things_classes, self.bbox_head.num_classes)
        metas = [sample.metainfo for sample in samples]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_detector):
            finer, encoded = self._encode(batch_inputs, samples)
            targets = collate_targets([sample.gt_instances for sample in samples], metas, self.bbox_head.num_classes)
            if self.freeze_detector:  # aids would teach nothing
                hidden_states, losses = self.neck.decode_own(encoded), {}
            else:
                hidden_states, losses = self._decode(encoded, samples, targets, batch_inputs.shape[-2:])
            outputs = self.bbox_head(hidden_states, **self._references)
            found, pairs = self.bbox_head.losses_and_pairs(*outputs, targets, metas)
        if self.mask_head is None:
            return found | losses

        masks_of = partial(self._masks_of, hidden_states[-1], encoded, finer)
        num_objects = self.bbox_head.num_objects(targets, like=outputs[1])
        return found | losses | self._mask_losses(samples, last_matches(pairs), masks_of, batch_inputs.shape[-2:], num_objects)

    def _masks_of(self, hidden_states: Tensor, encoded: Encoded, finer: Sequence[Tensor], image: Tensor, query: Tensor) -> Tensor:
        """Masks (P, H/4, W/4) of some queries, in their order: by image.

        The queries are gathered first, because the attention maps of all would be most of what is kept for the backward pass.
        """
        gathered, chosen = gather_queries(image, query, hidden_states)
        return self.mask_head(gathered, encoded, finer, chosen)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with predictions; in the original images' pixels with ``rescale``.

        ``pred_panoptic_seg.sem_seg`` (1, H, W): label + 1000 x instance, ``num_classes`` where nothing is. ``pred_instances``: things
        alone, ``bboxes`` in xyxy, ``scores``, ``labels``, and ``masks`` (N, H, W) with ``instance_on``, best first.
        """
        finer, encoded = self._encode(batch_inputs, batch_data_samples)
        hidden_states = self.neck.decode_own(encoded)[-1:]
        logits, boxes = self.bbox_head(hidden_states, **self._references)
        metas = [sample.metainfo for sample in batch_data_samples]
        instances, queries = self.bbox_head.ranked(logits, boxes, metas, rescale)
        scores, labels = at_least_float32(logits[-1]).softmax(-1).max(-1)  # of no object too
        is_sure = (labels < self.bbox_head.num_classes) & (scores > self.score_thr)
        findings = [
            Findings(*of_image, sure.nonzero()[:, 0], of_queries[sure])
            for *of_image, sure, of_queries in zip(instances, queries, is_sure, labels, strict=True)
        ]
        masks_of = partial(self._masks_of, hidden_states[-1], encoded, finer)
        return self._add_results(batch_data_samples, findings, labels.shape[1], masks_of, batch_inputs.shape[-2:], rescale)

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """As ``DETR.detect``; with a mask head also no-object's probability (B, Q), and mask logits (B, Q, H/4, W/4) of all queries."""
        *finer, feats = self.backbone(batch_inputs)
        encoded = self.neck.encode(feats, padding_mask_of_sizes(sizes, batch_inputs.shape[-2:], feats.shape[-2:]))
        hidden_states = self.neck.decode_own(encoded)
        logits, boxes = self.bbox_head(hidden_states[-1:], **self._references)
        found = self.bbox_head.best_classes(logits[-1], boxes[-1])
        if self.mask_head is None:
            return found
        masks = self.mask_head(hidden_states[-1], encoded, finer).unflatten(0, hidden_states.shape[1:3])
        return *found, at_least_float32(logits[-1]).softmax(-1)[..., -1], at_least_float32(masks)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, ...]:
        """Class logits (L, B, Q, K+1), boxes_cxcywh_norm (L, B, Q, 4), and mask logits (B, Q, H/4, W/4) of the last layer."""
        finer, encoded = self._encode(batch_inputs, batch_data_samples)
        hidden_states = self.neck.decode_own(encoded)
        outputs = self.bbox_head(hidden_states, **self._references)
        if self.mask_head is None:
            return outputs
        return *outputs, self.mask_head(hidden_states[-1], encoded, finer).unflatten(0, hidden_states.shape[1:3])
