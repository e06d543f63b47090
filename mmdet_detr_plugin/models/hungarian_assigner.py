"""Bipartite matching between queries and objects (paper, section 3.1, equation 1; reference: models/matcher.py).

Letters: L decoder layers, B images, Q queries, K classes, T objects (padded), P matched pairs.

Deliberate differences from the reference: all layers and images share one cost tensor and one copy to the host; a cost that is not finite
is an error that names its cause, instead of scipy's; more objects than queries are announced.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner, BBoxL1Cost, ClassificationCost, IoUCost
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..boxes import cxcywh_to_xyxy
from ..devices import at_least_float32, to_device, to_host
from ..registry import TASK_UTILS
from .assignment import NotFiniteError, solve
from .match_cost import paper_cost
from .parts import build_task_util
from .targets import Targets, image_name

PAPER_COSTS = (
    dict(type='mmdet.ClassificationCost', weight=1.0),
    dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
)


@dataclass(frozen=True)
class Pairs:
    """Matched pairs of all layers and images, ordered by layer, then image, then object.

    Attributes:
        prediction: (P,), index into the predictions (L, B, Q) as one flat list.
        object: (P,), index into the padded objects (B, T) as one flat list.
        num_images: B.
        num_queries: Q.
        num_slots: T.
    """

    prediction: Tensor
    object: Tensor
    num_images: int
    num_queries: int
    num_slots: int

    @property
    def layer(self) -> Tensor:
        return self.prediction // (self.num_images * self.num_queries)

    @property
    def image(self) -> Tensor:
        return self.prediction // self.num_queries % self.num_images

    @property
    def query(self) -> Tensor:
        return self.prediction % self.num_queries

    @property
    def target(self) -> Tensor:
        return self.object % max(1, self.num_slots)


@TASK_UTILS.register_module()
class HungarianAssigner(BaseAssigner):
    """One-to-one matching of least total cost; mmdet's contract (``assign``) and the batched one (``assign_batch``) give the same pairs.

    Args:
        match_costs: configs of mmdet's match costs; default: the paper's, -p + 5 L1 - 2 GIoU.

    Raises:
        ValueError: when ``match_costs`` is empty or names an unknown cost.
    """

    def __init__(self, match_costs: Sequence[dict] | dict | None = None) -> None:
        if isinstance(match_costs, dict):
            match_costs = [match_costs]
        if match_costs is not None and not len(match_costs):
            raise ValueError('match_costs must name at least one cost; leave it out for the costs of the paper')
        self.match_costs = [build_task_util(dict(cost), 'match_costs') for cost in match_costs or PAPER_COSTS]
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
    def assign_batch(
        self,
        cls_logits: Tensor,
        boxes_cxcywh_norm: Tensor,
        targets: Targets,
        img_metas: Sequence[dict],
        log_probability: Tensor | None = None,
    ) -> Pairs:
        """Match the predictions of all layers in all images, with one copy to the host.

        Args:
            cls_logits: (L, B, Q, K+1).
            boxes_cxcywh_norm: (L, B, Q, 4).
            targets: the objects of the B images.
            img_metas: ``img_shape`` of each image; ``img_id`` and ``img_path`` for messages.
            log_probability: (L, B, Q, K+1), the logits' log-softmax, where the caller has it already.

        Raises:
            FloatingPointError: when a cost is not finite; the message names layer, image and tensor.
            ValueError: when a label is not a class of the head.
        """
        num_queries, num_slots = cls_logits.shape[2], targets.labels.shape[1]
        self._warn_if_too_many(targets.counts, num_queries)
        num_images, counts = len(targets.counts), targets.counts * len(cls_logits)
        costs = self._batch_costs(cls_logits, boxes_cxcywh_norm, targets, img_metas, log_probability)
        try:
            threads = 1 if cls_logits.device.type == 'cpu' else torch.get_num_threads()
            solutions = solve(costs, counts, (num_slots, num_queries), threads) if targets.num_objects else []
        except NotFiniteError as error:
            _raise_fault(cls_logits, boxes_cxcywh_norm, targets, img_metas, *divmod(error.problem, num_images))
        index = np.zeros((2, sum(len(rows) for rows, _ in solutions)), dtype=np.int64)
        end = 0
        for problem, (target, query) in enumerate(solutions):
            start, end = end, end + len(target)
            index[0, start:end] = query + problem * num_queries
            index[1, start:end] = target + problem % num_images * num_slots
        prediction, object_index = to_device(torch.from_numpy(index), cls_logits.device)
        return Pairs(prediction, object_index, num_images, num_queries, num_slots)

    def _batch_costs(
        self, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict], log_probability: Tensor | None
    ) -> Callable[[slice], np.ndarray]:
        """(n, T, Q) for a slice of the L x B problems; beyond an image's own objects finite and without meaning.

        On a device all costs are made and copied at once, on the host those that are asked for.
        """
        weights = self._paper_weights()
        if weights is None:
            costs = to_host(self._all_generic_costs(cls_logits, boxes, targets, img_metas))
            return lambda part: costs[part]
        if log_probability is None:
            log_probability = at_least_float32(cls_logits).log_softmax(-1)
        boxes = _with_faults(at_least_float32(boxes), cls_logits)
        objects = (targets.labels, targets.boxes_cxcywh_norm.to(boxes.dtype))
        tensors = [log_probability.detach().flatten(0, 1), boxes.flatten(0, 1)]
        tensors += [x.expand(len(boxes), *x.shape).flatten(0, 1) for x in objects]
        if boxes.device.type != 'cpu':
            costs = to_host(paper_cost(*tensors, weights))
            return lambda part: costs[part]
        return lambda part: paper_cost(*(x[part] for x in tensors), weights).numpy()

    def _all_generic_costs(self, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]) -> Tensor:
        """(L x B, T, Q), one by one, from any of mmdet's costs."""
        num_layers, num_images, num_queries = cls_logits.shape[:3]
        costs = cls_logits.new_zeros(num_layers, num_images, targets.labels.shape[1], num_queries, dtype=torch.float64)
        for layer in range(len(costs)):
            for image, count in enumerate(targets.counts):
                if count:
                    args = _as_instances(cls_logits[layer, image], boxes[layer, image], targets, image, img_metas[image])
                    costs[layer, image, :count] = self._generic_cost(*args).T
        faults = 0 * _with_faults(boxes.to(costs.dtype), cls_logits).sum(-1)  # (L, B, Q); of images without objects too
        return (costs + faults[:, :, None]).flatten(0, 1)

    def _generic_cost(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None) -> Tensor:
        """(Q, T), the sum of any of mmdet's match costs; NaN where they were computed from something that is not finite.

        Half precision goes to float32 first: the small numbers that costs add before a logarithm would be 0.
        """
        tensors = {key: at_least_float32(x) for key, x in pred_instances.items() if isinstance(x, Tensor) and x.is_floating_point()}
        pred_instances = pred_instances.new(**dict(pred_instances.items()) | tensors)
        cost = sum(cost(pred_instances=pred_instances, gt_instances=gt_instances, img_meta=img_meta) for cost in self.match_costs)
        queries = [pred_instances.get(name) for name in ('bboxes', 'masks')]
        if 'scores' in pred_instances:  # -inf is allowed: how Grounding DINO masks words
            queries.append(pred_instances.scores.amax(-1, keepdim=True))
        objects = [getattr(gt_instances.get('bboxes'), 'tensor', gt_instances.get('bboxes'))]
        for shape, tensors in (((-1, 1), queries), ((1, -1), objects)):
            for tensor in tensors:
                if isinstance(tensor, Tensor) and tensor.numel():
                    cost = cost + 0 * at_least_float32(tensor).flatten(1).sum(1).reshape(shape)
        return cost

    @property
    def has_paper_costs(self) -> bool:
        """Whether the costs have the form of the paper's, with whatever weights."""
        return self._paper_weights() is not None

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
                "never be found. Raise the model's num_queries (said once).",
                stacklevel=3,
            )


def _with_faults(boxes: Tensor, cls_logits: Tensor) -> Tensor:
    """The boxes, but NaN where a logit is not finite: some give finite costs, such as -inf, whose probability is 0."""
    return boxes + 0 * cls_logits.detach().sum(-1, keepdim=True, dtype=boxes.dtype)


def _as_instances(logits: Tensor, boxes: Tensor, targets: Targets, image: int, img_meta: dict) -> tuple[InstanceData, InstanceData, dict]:
    """One layer and image in the form of mmdet's assigners: boxes in xyxy pixels, which half precision would round to whole ones."""
    logits, boxes = at_least_float32(logits), at_least_float32(boxes)
    height, width = img_meta['img_shape'][:2]
    factor = boxes.new_tensor([width, height, width, height])
    count = targets.counts[image]
    pred = InstanceData(scores=logits, bboxes=cxcywh_to_xyxy(boxes) * factor)
    gt = InstanceData(labels=targets.labels[image, :count], bboxes=cxcywh_to_xyxy(targets.boxes_cxcywh_norm[image, :count]) * factor)
    return pred, gt, img_meta


def assign_one_by_one(assigner: BaseAssigner, cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]) -> Pairs:
    """``assign_batch`` for a third-party assigner that has only mmdet's ``assign``; same arguments and result."""
    targets.check_labels(img_metas)
    num_queries, num_slots = cls_logits.shape[2], targets.labels.shape[1]
    pairs = []
    for layer in range(len(cls_logits)):
        for image in range(cls_logits.shape[1]):
            logits, predicted = cls_logits[layer, image].detach(), boxes[layer, image].detach()
            pred, gt, meta = _as_instances(logits, predicted, targets, image, img_metas[image])
            gt_inds = assigner.assign(pred_instances=pred, gt_instances=gt, img_meta=meta).gt_inds
            query = torch.nonzero(gt_inds > 0).flatten()
            problem = layer * cls_logits.shape[1] + image
            pairs.append(torch.stack((query + problem * num_queries, gt_inds[query] - 1 + image * num_slots)))
    return Pairs(*torch.cat(pairs, dim=1), cls_logits.shape[1], num_queries, num_slots)


def _raise_fault(cls_logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict], layer: int, image: int) -> None:
    pred, gt, meta = _as_instances(cls_logits[layer, image], boxes[layer, image], targets, image, img_metas[image])
    targets.check_labels(img_metas)
    raise FloatingPointError(_describe_fault(pred, gt, meta, layer))


def _describe_fault(pred: InstanceData, gt: InstanceData, img_meta: dict | None, layer: int | None) -> str:
    tensors = {'predicted class logits': pred.get('scores'), 'predicted boxes': pred.get('bboxes'), 'predicted masks': pred.get('masks')}
    tensors['ground-truth boxes'] = getattr(gt.get('bboxes'), 'tensor', gt.get('bboxes'))
    bad = [name for name, tensor in tensors.items() if tensor is not None and not torch.isfinite(tensor).all()]
    where = '' if layer is None else f' in decoder layer {layer}'
    return (
        f'The matching cost of {image_name(img_meta)}{where} is not finite: NaN or infinity in {" and ".join(bad) or "a match cost"}. '
        'Nothing was matched. Usual causes: a learning rate that is too high, no gradient clipping, fp16 without loss scaling, '
        'a broken checkpoint or image.'
    )
