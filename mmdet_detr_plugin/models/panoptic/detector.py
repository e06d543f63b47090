"""DETR with a mask head: panoptic segmentation, or instance segmentation without stuff classes (paper, section 4.4)."""

import copy
from collections.abc import Sequence

import torch
from mmdet.structures import SampleList
from mmengine.structures import PixelData
from torch import Tensor

from ...devices import at_least_float32
from ...registry import MODELS
from ..detector import DETR, feature_padding_mask, padding_mask_of_sizes
from ..detr_head import DETRHead
from ..parts import build_model_part
from ..targets import collate_targets
from ..transformer_neck import Encoded, TransformerNeck
from .post_processing import at_batch_size, instance_masks, panoptic_map
from .segments import with_stuff_objects

DEFAULT_TEST_CFG = dict(panoptic_on=True, instance_on=True, score_thr=0.85)


@MODELS.register_module()
class PanopticDETR(DETR):
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
        own = {**DEFAULT_TEST_CFG, **{key: value for key, value in (test_cfg or {}).items() if key in DEFAULT_TEST_CFG}}
        rest = {key: value for key, value in (test_cfg or {}).items() if key not in DEFAULT_TEST_CFG}
        super().__init__(backbone, neck, bbox_head, test_cfg=rest or None, **kwargs)
        self.panoptic_on, self.instance_on, self.score_thr = (own[key] for key in DEFAULT_TEST_CFG)
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.mask_head = build_model_part(copy.deepcopy(mask_head), 'mask_head') if mask_head else None
        if not mask_head:
            self.panoptic_on = self.instance_on = False
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
        things, stuff = self.num_things_classes, self.num_stuff_classes
        if things + stuff != self.bbox_head.num_classes or min(things, stuff) < 0:
            raise ValueError(
                f'bbox_head.num_classes must be num_things_classes + num_stuff_classes = {things} + {stuff}, got '
                f'{self.bbox_head.num_classes}'
            )
        if self.mask_head is None:
            if self.freeze_detector:
                raise ValueError('freeze_detector=True without a mask_head leaves nothing to train')
            return
        if self.mask_head.embed_dims != self.neck.embed_dims:
            raise ValueError(
                f'mask_head.embed_dims is {self.mask_head.embed_dims}, neck.embed_dims {self.neck.embed_dims}; make them equal'
            )
        outputs = tuple(getattr(self.backbone, 'out_indices', (0, 1, 2, 3)))
        if outputs != (0, 1, 2, 3):
            raise ValueError(f'the mask head needs all four stages of the backbone: set backbone.out_indices=(0, 1, 2, 3), got {outputs}')

    def train(self, mode: bool = True) -> 'PanopticDETR':
        super().train(mode)
        if self.freeze_detector:
            self.backbone.eval()  # statistics of norms would go on moving otherwise
        return self

    def _encode(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> tuple[Sequence[Tensor], Encoded]:
        """The backbone's feature maps for the mask head, finest first, and the encoder's output."""
        *finer, feats = self.backbone(batch_inputs)
        mask = None
        if batch_data_samples is not None:
            shapes = [sample.img_shape[:2] for sample in batch_data_samples]
            mask = feature_padding_mask(shapes, batch_inputs.shape[-2:], feats.shape[-2:], feats.device)
        return finer, self.neck.encode(feats, mask)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the detector, its training aids and the masks, by name; mmengine sums them."""
        samples = with_stuff_objects(batch_data_samples, self.num_things_classes, self.bbox_head.num_classes)
        metas = [sample.metainfo for sample in samples]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_detector):
            finer, encoded = self._encode(batch_inputs, samples)
            targets = collate_targets([sample.gt_instances for sample in samples], metas, self.bbox_head.num_classes)
            hidden_states, losses = self._decode(encoded, samples, targets)
            supervised = hidden_states if self.bbox_head.aux_loss else hidden_states[-1:]
            outputs = self.bbox_head(supervised, **self._references)
            found, pairs = self.bbox_head.losses_and_pairs(*outputs, targets, metas)
        if self.mask_head is None:
            return found | losses

        is_last = pairs.layer == pairs.layer.amax() if len(pairs.layer) else pairs.layer.bool()
        image, target, query = pairs.image[is_last], pairs.target[is_last], pairs.query[is_last]
        masks = [samples[i].gt_instances.masks[t] for i, t in zip(image.tolist(), target.tolist(), strict=True)]
        weight = 1.0
        if not masks:  # as many parameters take part as always, which several processes need
            image, query = image.new_zeros(1), query.new_zeros(1)
            masks, weight = [torch.zeros(batch_inputs.shape[-2:], dtype=torch.bool, device=batch_inputs.device)], 0.0
        logits = self._masks_of(hidden_states[-1], encoded, finer, image, query)
        num_objects = self.bbox_head.num_objects(targets, like=outputs[1])
        of_masks = self.mask_head.loss(logits, masks, batch_inputs.shape[-2:], num_objects)
        return {**found, **losses, **{name: weight * value for name, value in of_masks.items()}}

    def _masks_of(self, hidden_states: Tensor, encoded: Encoded, finer: Sequence[Tensor], image: Tensor, query: Tensor) -> Tensor:
        """Masks (P, H/4, W/4) of some queries, in their order: by image.

        The queries are gathered first, because the attention maps of all would be most of what is kept for the backward pass.
        """
        counts = torch.bincount(image, minlength=len(hidden_states))
        slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
        chosen = torch.zeros(len(hidden_states), int(counts.max()), dtype=torch.bool, device=image.device)
        chosen[image, slot] = True
        gathered = hidden_states.new_zeros(*chosen.shape, hidden_states.shape[-1])
        gathered = gathered.index_put((image, slot), hidden_states[image, query])
        return self.mask_head(gathered, encoded, finer, chosen)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with predictions; in the original images' pixels with ``rescale``.

        ``pred_panoptic_seg.sem_seg`` (1, H, W): label + 1000 x instance, ``num_classes`` where nothing is. ``pred_instances``: things
        alone, ``bboxes`` in xyxy, ``scores``, ``labels``, and ``masks`` (N, H, W) with ``instance_on``, best first.
        """
        finer, encoded = self._encode(batch_inputs, batch_data_samples)
        hidden_states = self.neck.decode(encoded, [self.neck.queries(encoded.memory.dtype)])[-1:]
        logits, boxes = self.bbox_head(hidden_states, **self._references)
        metas = [sample.metainfo for sample in batch_data_samples]
        instances, queries = self.bbox_head.ranked(logits, boxes, metas, rescale)
        is_thing = [results.labels < self.num_things_classes for results in instances]
        instances = [results[things] for results, things in zip(instances, is_thing, strict=True)]
        queries = [of_image[things] for of_image, things in zip(queries, is_thing, strict=True)]

        scores, labels = at_least_float32(logits[-1]).softmax(-1).max(-1)  # of no object too
        is_sure = (labels < self.bbox_head.num_classes) & (scores > self.score_thr) & self.panoptic_on
        is_wanted = is_sure.clone()
        if self.instance_on:
            for wanted, of_image in zip(is_wanted, queries, strict=True):
                wanted[of_image] = True
        masks = self._wanted_masks(hidden_states[-1], encoded, finer, is_wanted)
        number = is_wanted.cumsum(1) - 1  # of each wanted query among its image's masks
        for index, sample in enumerate(batch_data_samples):
            img_shape = sample.img_shape[:2]
            out_shape = sample.ori_shape[:2] if rescale else img_shape
            sample.pred_instances = instances[index]
            if self.instance_on:
                of_things = masks[index][number[index][queries[index]]]
                sample.pred_instances.masks = instance_masks(of_things, batch_inputs.shape[-2:], img_shape, out_shape)
            if self.panoptic_on:
                sure = is_sure[index]
                of_sure = at_batch_size(masks[index][number[index][sure]], batch_inputs.shape[-2:], img_shape)
                seg = panoptic_map(of_sure, labels[index][sure], self.num_things_classes, self.bbox_head.num_classes, out_shape)
                sample.pred_panoptic_seg = PixelData(sem_seg=seg[None])
        return batch_data_samples

    def _wanted_masks(self, hidden_states: Tensor, encoded: Encoded, finer: Sequence[Tensor], is_wanted: Tensor) -> list[Tensor]:
        """Of each image, mask logits (P, h, w) of the wanted queries, in their order."""
        image, query = is_wanted.nonzero(as_tuple=True)
        if not len(image):  # as without a mask head
            return [hidden_states.new_zeros(0, 1, 1)] * len(is_wanted)
        return list(self._masks_of(hidden_states, encoded, finer, image, query).split(is_wanted.sum(1).tolist()))

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """As ``DETR.detect``; with a mask head also no-object's probability (B, Q), and mask logits (B, Q, H/4, W/4) of all queries."""
        *finer, feats = self.backbone(batch_inputs)
        encoded = self.neck.encode(feats, padding_mask_of_sizes(sizes, batch_inputs.shape[-2:], feats.shape[-2:]))
        hidden_states = self.neck.decode(encoded, [self.neck.queries(encoded.memory.dtype)])
        logits, boxes = self.bbox_head(hidden_states[-1:], **self._references)
        found = self.bbox_head.best_classes(logits[-1], boxes[-1])
        if self.mask_head is None:
            return found
        masks = self.mask_head(hidden_states[-1], encoded, finer).unflatten(0, hidden_states.shape[1:3])
        return *found, at_least_float32(logits[-1]).softmax(-1)[..., -1], at_least_float32(masks)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, ...]:
        """Class logits (L, B, Q, K+1), boxes_cxcywh_norm (L, B, Q, 4), and mask logits (B, Q, H/4, W/4) of the last layer."""
        finer, encoded = self._encode(batch_inputs, batch_data_samples)
        hidden_states = self.neck.decode(encoded, [self.neck.queries(encoded.memory.dtype)])
        outputs = self.bbox_head(hidden_states, **self._references)
        if self.mask_head is None:
            return outputs
        return *outputs, self.mask_head(hidden_states[-1], encoded, finer).unflatten(0, hidden_states.shape[1:3])
