"""Exact attention weights of a trained ``DETR`` or ``LocalDETR`` (paper, section 4.3).

The layers run fused kernels that never form the weights. Hooks on the attention modules keep each layer's queries and keys, a few hundred
kilobytes, from which the rows that somebody asks for are computed afterwards: the N x N weights of an encoder layer are never held.

Letters: L layers, B images, N cells of the feature map, Q queries, H heads, R rows, D channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import at_least_float32
from ..models.detector import DETR
from ..models.fused_linear import apply_linear
from ..models.local_detr.detector import LocalDETR
from ..models.local_detr.head import LocalDETRHead
from ..models.local_detr.pyramid_encoder import PyramidEncoder
from ..models.local_detr.relation_attention import RelationAttention
from ..models.transformer import MultiheadAttention
from ..models.transformer_neck import TransformerNeck
from .mask_sources import DETRMaskSources, LocalMaskSources, mask_sources


@dataclass
class LayerAttention:
    """One layer's attention, before dropout.

    Attributes:
        q: (B, H, R, D/H), projected queries; R cells or queries attend.
        k: (B, H, N, D/H), projected keys.
        attend_mask: (B or 1, 1, 1 or R, N), True = may be attended to; None = everything may.
        bias: (B, H, R, N), added to the scaled products; None = nothing is.
    """

    q: Tensor
    k: Tensor
    attend_mask: Tensor | None
    bias: Tensor | None = None

    @property
    def num_heads(self) -> int:
        return self.q.shape[1]

    def weights(self, image: int = 0, rows: Sequence[int] | None = None, per_head: bool = False) -> Tensor:
        """The softmax, in float32 or better; what is masked is exactly 0.

        Args:
            image: which of the batch.
            rows: cells or queries whose attention is wanted; None = all.
            per_head: keep the heads apart instead of averaging them.

        Returns:
            (R, N), each row with the sum 1; (H, R, N) with ``per_head``.
        """
        rows = slice(None) if rows is None else list(rows)
        q, k = at_least_float32(self.q[image][:, rows]), at_least_float32(self.k[image])
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (H, R, N)
        if self.bias is not None:
            scores = scores + self.bias[image][:, rows]
        if self.attend_mask is not None:
            mask = self.attend_mask[image if len(self.attend_mask) > 1 else 0]
            scores = scores.masked_fill(~(mask if mask.shape[1] == 1 else mask[:, rows]), -torch.inf)
        weights = scores.softmax(-1)
        return weights if per_head else weights.mean(0)


@dataclass
class AttentionRecord:
    """What the last forward pass left behind; layers in their order.

    Attributes:
        encoder: between the cells of the feature map (of the coarsest one in ``LocalDETR``).
        cross: from queries to cells; none in ``LocalDETR``, whose queries look into their boxes instead.
        queries: between queries.
        regions: ``LocalDETR``: (B, Q, 4) of each decoder layer, what each query looks at: centre and size as fractions of the padded
            batch's sides.
        map_size: (h, w) of the feature map, with h * w = N.
        logits: (L, B, Q, K or K+1), of all decoder layers.
        boxes_cxcywh_norm: (L, B, Q, 4).
        mask_sources: what the model's mask head makes masks from; None for models without one.
    """

    encoder: list[LayerAttention] = field(default_factory=list)
    cross: list[LayerAttention] = field(default_factory=list)
    queries: list[LayerAttention] = field(default_factory=list)
    regions: list[Tensor] = field(default_factory=list)
    map_size: tuple[int, int] | None = None
    logits: Tensor | None = None
    boxes_cxcywh_norm: Tensor | None = None
    mask_sources: DETRMaskSources | LocalMaskSources | None = None


def has_attention(model: nn.Module) -> bool:
    """Whether ``record_attention`` can look into the model."""
    return _is_detr(model) or _is_local_detr(model)


def check_has_attention(model: nn.Module) -> None:
    """Refuse other models.

    Raises:
        ValueError: for a model that ``record_attention`` cannot look into.
    """
    if not has_attention(model):
        raise ValueError(
            "attention is recorded of the plugin's DETR with a TransformerNeck and of its LocalDETR, got "
            f'{type(model).__module__}.{type(model).__name__}{_parts(model)}; use a config of one of these'
        )


@contextmanager
def record_attention(model: nn.Module) -> Iterator[AttentionRecord]:
    """Record the forward passes of inference inside the ``with`` block; each replaces the one before.

    Outputs stay what they are, bit for bit; nothing is left on the model afterwards. A model that is compiled runs uncompiled inside, since
    compiled code does not see hooks.

    Raises:
        ValueError: for a model whose attention cannot be recorded.
    """
    check_has_attention(model)
    record = AttentionRecord()
    with ExitStack() as stack:
        if any(module._compiled_call_impl is not None for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance('force_eager'))
        for handle in _hooks(model, record):
            stack.callback(handle.remove)
        yield record


def _is_detr(model: nn.Module) -> bool:
    return isinstance(model, DETR) and isinstance(model.neck, TransformerNeck)


def _is_local_detr(model: nn.Module) -> bool:
    return isinstance(model, LocalDETR) and isinstance(model.neck, PyramidEncoder) and isinstance(model.bbox_head, LocalDETRHead)


def _parts(model: nn.Module) -> str:
    return f' with {type(model.neck).__name__}' if isinstance(model, DETR | LocalDETR) else ''


def _hooks(model: nn.Module, record: AttentionRecord) -> Iterator:
    """Handles of hooks; none of them sits on a linear or convolution layer that the fused operations look at."""
    if _is_detr(model):
        attentions = dict(
            encoder=[layer.self_attn for layer in model.neck.encoder.layers],
            queries=[layer.self_attn for layer in model.neck.decoder.layers],
            cross=[layer.multihead_attn for layer in model.neck.decoder.layers],
        )
        yield model.neck.input_proj.register_forward_hook(partial(_keep_map_size, record))
        yield model.neck.decoder.register_forward_hook(partial(_keep_detr_outputs, model, record))
    else:
        attentions = dict(
            encoder=[layer.self_attn for layer in model.neck.encoder.layers],
            queries=[layer.self_attn for layer in model.bbox_head.layers],
        )
        yield model.neck.input_projs[-1].conv.register_forward_hook(partial(_keep_map_size, record))
        yield model.bbox_head.register_forward_hook(partial(_keep_local_outputs, record))
        record.regions = [None] * len(model.bbox_head.layers)
        for index, layer in enumerate(model.bbox_head.layers):
            yield layer.register_forward_hook(partial(_keep_region, record.regions, index))
    record.mask_sources = mask_sources(model)
    if record.mask_sources is not None:
        yield from record.mask_sources.hooks(model)
    for kind, modules in attentions.items():
        kept = [None] * len(modules)
        setattr(record, kind, kept)
        for index, module in enumerate(modules):
            yield module.register_forward_hook(partial(_keep_attention, kept, index))


@torch.no_grad()
def _keep_attention(kept: list, index: int, module: MultiheadAttention, args: tuple, output: Tensor) -> None:
    if isinstance(module, RelationAttention):
        located, x, features, attend_mask = args
        q, k, _ = module.project(located, located, x)
        relation = F.relu(apply_linear(module.relation, features.to(x.dtype)))  # (B, Q, Q, R)
        bias = apply_linear(module.relation_bias, relation).permute(0, 3, 1, 2)  # (B, H, Q, Q)
    else:
        query, key, value, attend_mask = args
        (q, k, _), bias = module.project(query, key, value), None
    kept[index] = LayerAttention(q, k, attend_mask, bias)


def _keep_map_size(record: AttentionRecord, module: nn.Module, args: tuple, output: Tensor) -> None:
    record.map_size = tuple(output.shape[-2:])


@torch.no_grad()
def _keep_detr_outputs(model: DETR, record: AttentionRecord, module: nn.Module, args: tuple, output: Tensor) -> None:
    reference_logits = model.neck.reference_logits
    references = {} if reference_logits is None else dict(reference_logits=reference_logits)
    record.logits, record.boxes_cxcywh_norm = model.bbox_head(output, **references)


def _keep_local_outputs(record: AttentionRecord, module: nn.Module, args: tuple, output) -> None:
    record.logits, record.boxes_cxcywh_norm = output.logits.detach(), output.boxes.detach()


def _keep_region(regions: list, index: int, module: nn.Module, args: tuple, output: Tensor) -> None:
    regions[index] = args[4].detach()
