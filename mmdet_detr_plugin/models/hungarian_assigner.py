"""Bipartite matching between queries and objects (paper, section 3.1, equation 1; reference: models/matcher.py).

Letters: L decoder layers, B images, Q queries, K classes, T objects (padded), P matched pairs.

Deliberate differences from the reference: all layers and images share one cost tensor and one copy to the host; a cost that is not finite
is an error that names its cause, instead of scipy's; more objects than queries are announced.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner, BBoxL1Cost, ClassificationCost, IoUCost
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..boxes import cxcywh_to_xyxy, pairwise_giou
from ..registry import TASK_UTILS
from .targets import Targets, image_name

PAPER_COSTS = (
    dict(type='mmdet.ClassificationCost', weight=1.0),
    dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
)


@dataclass(frozen=True)
class Pairs:
    """Matched pairs of all layers and images, as four (P,) index tensors, ordered by layer, then image, then query."""

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


@TASK_UTILS.register_module()
class HungarianAssigner(BaseAssigner):
    """One-to-one matching of least total cost; mmdet's contract (``assign``) and the batched one (``assign_batch``) give the same pairs.

    Args:
        match_costs: configs of mmdet's match costs; default: the paper's, -p + 5 L1 - 2 GIoU.

    Raises:
        ValueError: when ``match_costs`` is empty.
    """

    def __init__(self, match_costs: Sequence[dict] | dict | None = None) -> None:
        if isinstance(match_costs, dict):
            match_costs = [match_costs]
        if match_costs is not None and not len(match_costs):
            raise ValueError('match_costs must name at least one cost; leave it out for the costs of the paper')
        self.match_costs = [MMDET_TASK_UTILS.build(dict(cost)) for cost in match_costs or PAPER_COSTS]
        self._warned = False

    @torch.no_grad()
    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None, **kwargs) -> AssignResult:
        """Match one layer's predictions in one image.

        Args:
            pred_instances: what the costs ask for: ``scores`` (Q, K or K+1) logits, ``bboxes`` (Q, 4) in xyxy pixels, ``masks``.
            gt_instances: ``labels`` (T,), ``bboxes`` (T, 4) in xyxy pixels, ``masks``.
            img_meta: ``img_shape`` where a cost normalises by it.

        Returns:
            ``gt_inds`` (Q,): 0 background, i + 1 matched to object i. ``labels`` (Q,): the class where matched, -1 elsewhere.
            Without predictions both are empty; without objects everything is background.

        Raises:
            FloatingPointError: when a cost is not finite.
        """
        num_gts, num_preds = len(gt_instances), len(pred_instances)
        gt_labels = gt_instances.labels
        gt_inds = gt_labels.new_zeros(num_preds, dtype=torch.long)
        labels = gt_labels.new_full((num_preds,), -1, dtype=torch.long)
        if num_gts and num_preds:
            cost = self._generic_cost(pred_instances, gt_instances, img_meta)
            self._warn_if_too_many([num_gts], num_preds)
            cost = cost.to(torch.promote_types(cost.dtype, torch.float32)).cpu().numpy()
            if not np.isfinite(cost).all():
                raise FloatingPointError(_describe_fault(pred_instances, gt_instances, img_meta, layer=None))
            rows, cols = (torch.from_numpy(index).to(gt_labels.device) for index in linear_sum_assignment(cost))
            gt_inds[rows] = cols + 1
            labels[rows] = gt_labels[cols]
        return AssignResult(num_gts=num_gts, gt_inds=gt_inds, max_overlaps=None, labels=labels)

    @torch.no_grad()
    def assign_batch(self, cls_logits: Tensor, boxes_cxcywh_norm: Tensor, targets: Targets, img_metas: Sequence[dict]) -> Pairs:
        """Match the predictions of all layers in all images, with one copy to the host.

        Args:
            cls_logits: (L, B, Q, K+1).
            boxes_cxcywh_norm: (L, B, Q, 4).
            targets: the objects of the B images.
            img_metas: ``img_shape`` of each image; ``img_id`` and ``img_path`` for messages.

        Raises:
            FloatingPointError: when a cost is not finite; the message names layer, image and tensor.
            ValueError: when a label is not a class of the head.
        """
        num_layers, _, num_queries = cls_logits.shape[:3]
        self._warn_if_too_many(targets.counts, num_queries)
        costs = self._batch_costs(cls_logits, boxes_cxcywh_norm, targets, img_metas)
        pairs = []
        for layer in range(num_layers):
            for image, count in enumerate(targets.counts):
                if not count:
                    continue
                cost = costs[layer, image, :, :count]
                if not np.isfinite(cost).all():
                    _raise_fault(cls_logits, boxes_cxcywh_norm, targets, img_metas, layer, image)
                query, target = linear_sum_assignment(cost)
                pairs.append(np.stack((np.full_like(query, layer), np.full_like(query, image), query, target)))
        index = np.concatenate(pairs, axis=1) if pairs else np.zeros((4, 0), dtype=np.int64)
        return Pairs(*torch.from_numpy(index).to(cls_logits.device, non_blocking=True))

    def _batch_costs(self, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]) -> np.ndarray:
        """(L, B, Q, T) on the host; entries beyond an image's own objects mean nothing."""
        weights = self._paper_weights()
        if weights is not None:
            return _paper_cost(cls_logits, boxes, targets, *weights).cpu().numpy()
        dtype = torch.promote_types(cls_logits.dtype, torch.float32)
        costs = cls_logits.new_zeros(*cls_logits.shape[:3], targets.labels.shape[1], dtype=dtype)
        for layer in range(len(costs)):
            for image, count in enumerate(targets.counts):
                if count:
                    args = _as_instances(cls_logits[layer, image], boxes[layer, image], targets, image, img_metas[image])
                    costs[layer, image, :, :count] = self._generic_cost(*args)
        return costs.cpu().numpy()

    def _generic_cost(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None) -> Tensor:
        """(Q, T), the sum of any of mmdet's match costs."""
        return sum(cost(pred_instances=pred_instances, gt_instances=gt_instances, img_meta=img_meta) for cost in self.match_costs)

    def _paper_weights(self) -> tuple[float, float, float] | None:
        """(class, L1, GIoU) when the costs have the form of the paper's, each at most once; None for any other set of costs."""
        weights = {}
        for cost in self.match_costs:
            kind = type(cost)
            fits = (
                kind is ClassificationCost
                or (kind is BBoxL1Cost and cost.box_format == 'xywh')
                or (kind is IoUCost and cost.iou_mode == 'giou')
            )
            if not fits or kind in weights:
                return None
            weights[kind] = cost.weight
        return tuple(weights.get(kind, 0.0) for kind in (ClassificationCost, BBoxL1Cost, IoUCost))

    def _warn_if_too_many(self, counts: Sequence[int], num_queries: int) -> None:
        if not self._warned and max(counts, default=0) > num_queries:
            self._warned = True
            warnings.warn(
                f'An image has {max(counts)} objects, the model {num_queries} queries: the objects of highest cost stay unmatched and can '
                'never be found. Raise model.neck.num_queries (said once).',
                stacklevel=3,
            )


def _paper_cost(cls_logits: Tensor, boxes: Tensor, targets: Targets, cls_weight: float, l1_weight: float, giou_weight: float) -> Tensor:
    """(L, B, Q, T), in float32 or better."""
    dtype = torch.promote_types(cls_logits.dtype, torch.float32)
    index = targets.labels[None, :, None, :].expand(*cls_logits.shape[:3], -1)  # (L, B, Q, T)
    probability = cls_logits.to(dtype).softmax(-1).gather(-1, index)
    boxes, target_boxes = boxes.to(dtype), targets.boxes_cxcywh_norm.to(dtype)
    l1 = (boxes[..., :, None, :] - target_boxes[:, None, :, :]).abs().sum(-1)
    giou = pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
    return l1_weight * l1 - cls_weight * probability - giou_weight * giou


def _as_instances(logits: Tensor, boxes: Tensor, targets: Targets, image: int, img_meta: dict) -> tuple[InstanceData, InstanceData, dict]:
    """One layer and image in the form of mmdet's assigners: boxes in xyxy pixels."""
    height, width = img_meta['img_shape'][:2]
    factor = boxes.new_tensor([width, height, width, height])
    count = targets.counts[image]
    pred = InstanceData(scores=logits, bboxes=cxcywh_to_xyxy(boxes) * factor)
    gt = InstanceData(labels=targets.labels[image, :count], bboxes=cxcywh_to_xyxy(targets.boxes_cxcywh_norm[image, :count]) * factor)
    return pred, gt, img_meta


def assign_one_by_one(assigner: BaseAssigner, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]) -> Pairs:
    """``assign_batch`` for a third-party assigner that has only mmdet's ``assign``; same arguments and result."""
    targets.check_labels(img_metas)
    pairs = []
    for layer in range(len(cls_logits)):
        for image in range(cls_logits.shape[1]):
            logits, predicted = cls_logits[layer, image].detach(), boxes[layer, image].detach()
            pred, gt, meta = _as_instances(logits, predicted, targets, image, img_metas[image])
            gt_inds = assigner.assign(pred_instances=pred, gt_instances=gt, img_meta=meta).gt_inds
            query = torch.nonzero(gt_inds > 0).flatten()
            pairs.append(torch.stack((torch.full_like(query, layer), torch.full_like(query, image), query, gt_inds[query] - 1)))
    return Pairs(*torch.cat(pairs, dim=1))


def _raise_fault(cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict], layer: int, image: int) -> None:
    pred, gt, meta = _as_instances(cls_logits[layer, image], boxes[layer, image], targets, image, img_metas[image])
    targets.check_labels(img_metas)
    raise FloatingPointError(_describe_fault(pred, gt, meta, layer))


def _describe_fault(pred: InstanceData, gt: InstanceData, img_meta: dict | None, layer: int | None) -> str:
    tensors = {'predicted class logits': pred.get('scores'), 'predicted boxes': pred.get('bboxes'), 'ground-truth boxes': gt.get('bboxes')}
    bad = [name for name, tensor in tensors.items() if tensor is not None and not torch.isfinite(tensor).all()]
    where = '' if layer is None else f' in decoder layer {layer}'
    return (
        f'The matching cost of {image_name(img_meta)}{where} is not finite: NaN or infinity in {" and ".join(bad) or "a match cost"}. '
        'Nothing was matched. Usual causes: a learning rate that is too high, no gradient clipping, fp16 without loss scaling, '
        'a broken checkpoint or image.'
    )
