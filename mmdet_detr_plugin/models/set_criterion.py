"""The set-prediction loss (paper, section 3.1, equation 2 and appendix A.2; reference: models/detr.py, SetCriterion), as pure functions.

Letters: L decoder layers, B images, Q queries, K classes, P matched pairs. All layers are computed together; every loss returns one
value for each layer and stays connected to the predictions when there is no object at all.
"""

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

from ..boxes import aligned_giou, cxcywh_to_xyxy
from ..devices import at_least_float32
from .hungarian_assigner import Pairs
from .targets import Targets


def average_over_ranks(number: Tensor) -> Tensor:
    """What a rank's sums are divided by: a number of objects or cells averaged over ranks, at least 1 in all ranks together."""
    return reduce_mean(number).clamp(min=1 / get_world_size())


def classification_loss(
    cls_logits: Tensor, log_probability: Tensor, pairs: Pairs, targets: Targets, class_weight: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of every query: its object's class where matched, no-object elsewhere.

    Args:
        cls_logits: (L, B, Q, K+1); the last class is no-object.
        log_probability: (L, B, Q, K+1), their log-softmax, which the matching has needed already; gradients do not pass it.
        class_weight: (K+1,).
        weights: (B, Q), how much a query counts; None = all count 1.

    Returns:
        Sum of weighted terms (L,) and sum of weights (L,); their ratio is the official loss.
    """
    num_layers, num_outputs = cls_logits.shape[0], cls_logits.shape[-1]
    flat = cls_logits.flatten(0, 2)  # (L * B * Q, K+1)
    classes = torch.full(flat.shape[:1], num_outputs - 1, dtype=torch.long, device=flat.device)
    classes.index_copy_(0, pairs.prediction, targets.labels.flatten().index_select(0, pairs.object))
    weight = class_weight.to(log_probability.dtype).index_select(0, classes)
    if weights is not None:
        weight = weight * weights.to(weight.dtype).expand(num_layers, -1, -1).flatten()
    terms = WeightedCrossEntropy.apply(flat, log_probability.flatten(0, 2), classes, weight)
    return terms.view(num_layers, -1).sum(1), weight.view(num_layers, -1).sum(1)


class WeightedCrossEntropy(torch.autograd.Function):
    """-weight x log p(class) of every row, with the gradient weight x (p - onehot) written out.

    It makes one tensor of the logits' size in the backward pass, where autograd would make two or three.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, log_probability: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
        """(N, K+1), their log-softmax, (N,), (N,) -> (N,)."""
        ctx.save_for_backward(log_probability, classes, weight)
        ctx.dtype = logits.dtype
        return log_probability.gather(1, classes[:, None])[:, 0] * -weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        log_probability, classes, weight = ctx.saved_tensors
        scale = (grad * weight)[:, None]
        grad_logits = log_probability.exp().mul_(scale).scatter_add_(1, classes[:, None], -scale)
        return grad_logits.to(ctx.dtype), None, None, None


def box_losses(boxes_cxcywh_norm: Tensor, pairs: Pairs, targets: Targets, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU, summed over the matched pairs of each layer.

    Args:
        boxes_cxcywh_norm: (L, B, Q, 4).
        weights: (B, Q), how much a query counts; None = all count 1.

    Returns:
        Two sums (L,); the official losses divide them by the number of objects averaged over ranks.
    """
    boxes = at_least_float32(boxes_cxcywh_norm).flatten(0, 2).index_select(0, pairs.prediction)  # (P, 4)
    target_boxes = targets.boxes_cxcywh_norm.flatten(0, 1).index_select(0, pairs.object).to(boxes.dtype)
    l1 = (boxes - target_boxes).abs().sum(-1)
    giou = 1 - aligned_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
    terms = torch.stack((l1, giou), dim=-1)  # (P, 2)
    if weights is not None:
        terms = terms * weights.to(terms.dtype).flatten().index_select(0, pairs.prediction % weights.numel())[:, None]
    sums = boxes.new_zeros(len(boxes_cxcywh_norm), 2).index_add(0, pairs.layer, terms)
    return sums[:, 0], sums[:, 1]


def by_layer(losses: dict[str, Tensor], prefix: str = '') -> dict[str, Tensor]:
    """Losses (L,) of all layers as scalars: the last layer's under their plain names, the others' behind ``d0.``, ``d1.`` ..."""
    scalars = {name: torch.unbind_copy(values) for name, values in losses.items()}
    num_layers = len(next(iter(scalars.values())))
    return {
        prefix + ('' if layer == num_layers - 1 else f'd{layer}.') + name: values[layer]
        for layer in (num_layers - 1, *range(num_layers - 1))
        for name, values in scalars.items()
    }
