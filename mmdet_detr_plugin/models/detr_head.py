"""Class and box layers, loss and prediction (paper, section 3.1 to 3.2; reference: models/detr.py).

Deliberate differences from the reference: predictions come best first; boxes are clamped to the image, as mmdet does. Losses carry mmdet's
names (``loss_cls``, ``loss_bbox``, ``loss_iou``, ``d0.loss_cls`` ... for the auxiliary layers) and include their weights.
"""

from collections.abc import Sequence

import torch
from mmdet.structures import SampleList
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..boxes import cxcywh_to_xyxy
from ..devices import at_least_float32, is_autocast, to_device
from ..registry import MODELS
from .fused_linear import apply_linear
from .hungarian_assigner import Pairs, assign_one_by_one
from .parts import build_task_util, check_counts, checked_loss
from .set_criterion import box_losses, by_layer, classification_loss
from .targets import Targets, collate_targets

PAPER_LOSS_CLS = dict(type='CrossEntropyLoss', use_sigmoid=False, bg_cls_weight=0.1, class_weight=1.0, loss_weight=1.0)
OTHER_LOSSES = '. For other losses use mmdet.DETRHead, which runs inside this detector too.'


class BoxMLP(nn.Module):
    """Linear layers with ReLU between them; ``layers.0`` to ``layers.2`` are the official names."""

    def __init__(self, embed_dims: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(embed_dims, 4 if last else embed_dims) for last in [False] * (num_layers - 1) + [True])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = apply_linear(layer, x, relu=True)
        return apply_linear(self.layers[-1], x)


@MODELS.register_module()
class DETRHead(BaseModule):
    """DETR's prediction head. Its layers are shared by all decoder layers.

    The configs of mmdet's ``DETRHead`` fit; ``type`` changes, and an assigner's has its scope, which says whose it is.

    Args:
        num_classes: K, without no-object.
        embed_dims: channels D of the hidden states.
        aux_loss: also supervise the decoder's intermediate layers.
        sync_cls_avg_factor: normalise as one process with the images of all ranks would: average the classification loss's sum of weights
            over ranks, and let the number of objects be at least 1 in all of them. The official code keeps each rank's own sum, and divides
            by at least one object for each rank.
        num_box_layers: linear layers of the box prediction; 1 in the demo model.
        zero_init_boxes: start the last of them from zero, so that all boxes begin in the middle of the image, or at their queries'
            reference points.
        loss_cls: softmax cross-entropy: ``bg_cls_weight`` for no-object, ``class_weight`` for the others, ``loss_weight``.
        loss_bbox: L1 with ``loss_weight``.
        loss_iou: GIoU with ``loss_weight``.
        train_cfg: ``assigner``; default: ``HungarianAssigner`` with the paper's costs.
        test_cfg: ``max_per_img``; default: all queries.

    Raises:
        ValueError: when a loss is of another kind than those of the paper, a count is below 1, or the assigner's type is unknown.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int = 256,
        aux_loss: bool = True,
        sync_cls_avg_factor: bool = False,
        num_box_layers: int = 3,
        zero_init_boxes: bool = False,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        loss_iou: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if type(num_classes) is not int or num_classes < 1:
            raise ValueError(
                f'num_classes counts the classes without no-object and must be a whole number of at least 1, got {num_classes!r}'
            )
        check_counts(embed_dims=embed_dims, num_box_layers=num_box_layers)
        self.num_classes, self.embed_dims, self.aux_loss, self.sync_cls_avg_factor = num_classes, embed_dims, aux_loss, sync_cls_avg_factor
        self.max_per_img = (test_cfg or {}).get('max_per_img')
        if self.max_per_img is not None:
            check_counts(max_per_img=self.max_per_img)

        loss_cls = checked_loss(loss_cls, PAPER_LOSS_CLS, 'loss_cls', OTHER_LOSSES, use_sigmoid=False)
        loss_bbox = checked_loss(loss_bbox, dict(type='L1Loss', loss_weight=5.0), 'loss_bbox', OTHER_LOSSES)
        loss_iou = checked_loss(loss_iou, dict(type='GIoULoss', loss_weight=2.0), 'loss_iou', OTHER_LOSSES)
        self.loss_weights = dict(loss_cls=loss_cls['loss_weight'], loss_bbox=loss_bbox['loss_weight'], loss_iou=loss_iou['loss_weight'])
        class_weight = torch.full((num_classes + 1,), float(loss_cls['class_weight']))
        class_weight[-1] = loss_cls['bg_cls_weight']
        self.register_buffer('class_weight', class_weight, persistent=False)  # a setting, not a weight: never loaded from a file

        assigner = (train_cfg or {}).get('assigner') or dict(type='mmdet_detr_plugin.HungarianAssigner')
        self.assigner = build_task_util(assigner, 'train_cfg.assigner')
        self.fc_cls = nn.Linear(embed_dims, num_classes + 1)
        self.box_mlp = BoxMLP(embed_dims, num_box_layers)
        if zero_init_boxes:
            for parameter in self.box_mlp.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, hidden_states: Tensor, reference_logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(L, B, Q, D) -> class logits (L, B, Q, K+1) and boxes_cxcywh_norm (L, B, Q, 4).

        With ``reference_logits`` (B or 1, Q, 2), centres are predicted from these points. Under autocast the boxes are still computed in
        float32: in half precision they would move in steps of several pixels.
        """
        cls_logits = apply_linear(self.fc_cls, hidden_states)
        if is_autocast(hidden_states):
            with torch.autocast(hidden_states.device.type, enabled=False):
                return cls_logits, _boxes(self.box_mlp(hidden_states.float()), reference_logits)
        return cls_logits, _boxes(self.box_mlp(hidden_states), reference_logits)

    def loss(self, hidden_states: Tensor, batch_data_samples: SampleList, reference_logits: Tensor | None = None) -> dict[str, Tensor]:
        """Losses by name, from the decoder's hidden states (L, B, Q, D)."""
        gt_instances, img_metas = _unpack(batch_data_samples)
        return self.loss_by_feat(*self(hidden_states, reference_logits), gt_instances, img_metas)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: None = None,
    ) -> dict[str, Tensor]:
        """Losses by name, from the outputs of all decoder layers.

        Args:
            all_layers_cls_scores: (L, B, Q, K+1) logits.
            all_layers_bbox_preds: (L, B, Q, 4), boxes_cxcywh_norm.
            batch_gt_instances: ``labels`` and ``bboxes`` (xyxy pixels) of each image.
            batch_img_metas: ``img_shape`` of each image.
            batch_gt_instances_ignore: not supported by set prediction, as in mmdet.

        Returns:
            Scalars: the last layer's under their plain names, the others' behind ``d0.``, ``d1.`` ...

        Raises:
            ValueError: for a label that is no class, or ignored instances.
            FloatingPointError: for predictions or boxes that are not finite.
        """
        if batch_gt_instances_ignore is not None:
            raise ValueError('set prediction has no ignored instances; batch_gt_instances_ignore must be None')
        targets = collate_targets(batch_gt_instances, batch_img_metas, self.num_classes)
        return self.losses_and_pairs(all_layers_cls_scores, all_layers_bbox_preds, targets, batch_img_metas)[0]

    def losses_and_pairs(
        self, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]
    ) -> tuple[dict[str, Tensor], Pairs]:
        """Match, and losses by name, of the last layer alone without ``aux_loss``; arguments as those of ``match``."""
        if not self.aux_loss:
            cls_logits, boxes = cls_logits[-1:], boxes[-1:]
        log_probability = at_least_float32(cls_logits.detach()).log_softmax(-1)
        pairs = self.match(cls_logits, boxes, targets, img_metas, log_probability)
        return self.losses_of_pairs(cls_logits, boxes, pairs, targets, log_probability), pairs

    def match(
        self, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict], log_probability: Tensor | None = None
    ) -> Pairs:
        """One query for each object in each layer.

        Args:
            cls_logits: (L, B, Q, K+1).
            boxes: (L, B, Q, 4), cxcywh_norm.
            log_probability: the logits' log-softmax where it is known already.
        """
        if not hasattr(self.assigner, 'assign_batch'):
            return assign_one_by_one(self.assigner, cls_logits, boxes, targets, img_metas)
        return self.assigner.assign_batch(cls_logits, boxes, targets, img_metas, log_probability=log_probability)

    def losses_of_pairs(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        pairs: Pairs,
        targets: Targets,
        log_probability: Tensor,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name, for queries whose objects are known.

        Args:
            all_layers_cls_scores: (L, B, Q, K+1) logits.
            all_layers_bbox_preds: (L, B, Q, 4), boxes_cxcywh_norm.
            log_probability: (L, B, Q, K+1), the logits' log-softmax.
            weights: (B, Q), how much a query counts; None = all count 1. Those of an object's pairs should sum to 1.
        """
        cls_sum, weight_sum = classification_loss(all_layers_cls_scores, log_probability, pairs, targets, self.class_weight, weights)
        if self.sync_cls_avg_factor:
            weight_sum = reduce_mean(weight_sum)
        l1_sum, giou_sum = box_losses(all_layers_bbox_preds, pairs, targets, weights)
        num_objects = self.num_objects(targets, like=l1_sum)
        weight_sum = weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny)  # no-object may have weight 0
        losses = dict(loss_cls=cls_sum / weight_sum, loss_bbox=l1_sum / num_objects, loss_iou=giou_sum / num_objects)
        return by_layer({name: self.loss_weights[name] * values for name, values in losses.items()})

    def num_objects(self, targets: Targets, like: Tensor) -> Tensor:
        """What box and mask losses are divided by: the batch's number of objects averaged over ranks, never 0."""
        least = 1 / get_world_size() if self.sync_cls_avg_factor else 1
        return reduce_mean(like.new_full((), targets.num_objects)).clamp(min=least)

    def predict(
        self, hidden_states: Tensor, batch_data_samples: SampleList, rescale: bool = True, reference_logits: Tensor | None = None
    ) -> list[InstanceData]:
        """Detections of each image from the last decoder layer; see ``predict_by_feat``."""
        outputs = self(hidden_states[-1:], reference_logits)
        return self.predict_by_feat(*outputs, [sample.metainfo for sample in batch_data_samples], rescale)

    def predict_by_feat(
        self, layer_cls_scores: Tensor, layer_bbox_preds: Tensor, batch_img_metas: Sequence[dict], rescale: bool = True
    ) -> list[InstanceData]:
        """Every query's best class: softmax without no-object. No score threshold, no NMS.

        Args:
            layer_cls_scores: (L, B, Q, K+1) logits; the last layer counts.
            layer_bbox_preds: (L, B, Q, 4), boxes_cxcywh_norm.
            batch_img_metas: ``img_shape`` of each image; ``scale_factor`` (w, h) with ``rescale``.
            rescale: return boxes in the original image's pixels.

        Returns:
            For each image ``bboxes`` (N, 4) in xyxy pixels, ``scores`` (N,) descending and ``labels`` (N,); N is Q, or ``max_per_img``
            where that is smaller.
        """
        return self.ranked(layer_cls_scores, layer_bbox_preds, batch_img_metas, rescale)[0]

    def ranked(
        self, layer_cls_scores: Tensor, layer_bbox_preds: Tensor, batch_img_metas: Sequence[dict], rescale: bool = True
    ) -> tuple[list[InstanceData], Tensor]:
        """``predict_by_feat``, and the query (B, N) of each detection."""
        boxes, scores, labels = self.best_classes(layer_cls_scores[-1], layer_bbox_preds[-1])
        keep = min(self.max_per_img or scores.shape[1], scores.shape[1])
        scores, order = scores.topk(keep)
        labels = labels.gather(1, order)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        boxes = boxes * to_device(pixels(batch_img_metas, rescale).to(boxes.dtype), boxes.device)
        results = [
            InstanceData(bboxes=image_boxes, scores=image_scores, labels=image_labels)
            for image_boxes, image_scores, image_labels in zip(boxes, scores, labels, strict=True)
        ]
        return results, order

    @staticmethod
    def best_classes(cls_logits: Tensor, boxes_cxcywh_norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, K+1) and (B, Q, 4) -> corners (B, Q, 4) in [0, 1], scores (B, Q) and labels (B, Q) of every query's best class."""
        scores, labels = at_least_float32(cls_logits).softmax(-1)[..., :-1].max(-1)
        return cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm)).clamp(0, 1), scores, labels


def _boxes(raw: Tensor, reference_logits: Tensor | None) -> Tensor:
    if reference_logits is not None:
        raw = torch.cat((raw[..., :2] + reference_logits.to(raw.dtype), raw[..., 2:]), dim=-1)
    return raw.sigmoid()


def pixels(batch_img_metas: Sequence[dict], rescale: bool) -> Tensor:
    """(B, 1, 4), what turns normalised corners into pixels of the image as it is, or with ``rescale`` as it was."""
    sizes = []
    for meta in batch_img_metas:
        height, width = meta['img_shape'][:2]
        scale_w, scale_h = meta['scale_factor'] if rescale else (1, 1)
        sizes.append([[width / scale_w, height / scale_h] * 2])
    return torch.tensor(sizes, dtype=torch.float64)


def _unpack(batch_data_samples: SampleList) -> tuple[list[InstanceData], list[dict]]:
    return [sample.gt_instances for sample in batch_data_samples], [sample.metainfo for sample in batch_data_samples]
