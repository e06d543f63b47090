"""DETR's transformer layers on ``scaled_dot_product_attention`` (paper, section 3.2 and figure 10; reference: models/transformer.py).

Letters: B images, N cells of the feature map, Q queries, D channels, H heads, L decoder layers.

Deliberate differences from the reference: batch first; position terms of the memory are added once for all decoder layers; attention
weights are not returned. Parameter names and shapes are those of the official checkpoints (packed ``in_proj_weight``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..devices import at_least_float32, is_exporting
from .dropout import Dropout, dropout, uses_own_dropout
from .fused_linear import apply_linear, linear
from .parts import check_counts

# Where the fused kernels' backward passes add in any order under ``use_deterministic_algorithms(True, warn_only=True)``, with a warning;
# they have a deterministic form, which torch takes in strict mode alone.
ANY_ORDER = frozenset({'cuda'})


class MultiheadAttention(nn.Module):
    """Multi-head attention with separate inputs for queries, keys and values.

    Raises:
        ValueError: when ``embed_dims`` is not divisible by ``num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_counts(embed_dims=embed_dims, num_heads=num_heads)
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims must be divisible by num_heads, got {embed_dims} and {num_heads}; change one of them')
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dims, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attend_mask: Tensor | None = None) -> Tensor:
        """Attend from (B, Q, D) to (B, N, D).

        Args:
            query: (B, Q, D). The same object as ``key`` in self-attention, which then needs one projection for both.
            key: (B, N, D).
            value: (B, N, D).
            attend_mask: (B, 1, 1, N) or (B or 1, 1, Q, N), True = may be attended to; None = everything may.

        Returns:
            (B, Q, D).
        """
        q, k, v = self.project(query, key, value)
        attended = attention(q, k, v, attend_mask, self.dropout if self.training else 0.0)
        attended = attended.transpose(1, 2).flatten(2)
        return apply_linear(self.out_proj, attended)  # (B, H, Q, D/H) -> (B, Q, D)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, D) and twice (B, N, D) -> queries (B, H, Q, D/H), keys and values (B, H, N, D/H) of all heads."""
        dims = query.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k = linear(query, weight[: 2 * dims], bias[: 2 * dims]).split(dims, dim=-1)
        else:
            q = linear(query, weight[:dims], bias[:dims])
            k = linear(key, weight[dims : 2 * dims], bias[dims : 2 * dims])
        v = linear(value, weight[2 * dims :], bias[2 * dims :])
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, N, D) -> (B, H, N, D/H)


def attention(q: Tensor, k: Tensor, v: Tensor, attend_mask: Tensor | None, dropout_p: float) -> Tensor:
    """``scaled_dot_product_attention``, or in three steps where ``_is_fused`` says so.

    Every row must have something that may be attended to.

    Args:
        q: (B, H, Q, D/H).
        k: (B, H, N, D/H).
        v: (B, H, N, D/H).
        attend_mask: (B, 1, 1, N) or (B or 1, 1, Q, N), True = may be attended to; None = everything may.

    Returns:
        (B, H, Q, D/H).
    """
    if is_exporting():
        # spelled out: exported, the fused one looks for rows without anything to attend to, in passes over all weights
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if attend_mask is not None:
            scores = scores + torch.where(attend_mask, 0.0, -torch.inf).to(scores.dtype)
        return scores.softmax(-1) @ v
    if _is_fused(q, k, v, dropout_p):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attend_mask, dropout_p=dropout_p)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if attend_mask is not None:
        scores = scores.masked_fill_(~attend_mask, -torch.inf)
    weights = at_least_float32(scores).softmax(-1).to(v.dtype)
    return dropout(weights, dropout_p) @ v


def _is_fused(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> bool:
    """Not with dropout on CPUs, which have no fused kernel for it and a faster dropout here; nor for deterministic gradients on GPUs."""
    if dropout_p and uses_own_dropout(q):
        return False
    needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return not (needs_gradient and q.device.type in ANY_ORDER and torch.are_deterministic_algorithms_enabled())


class ResidualLayer(nn.Module):
    """What encoder and decoder layers share: the feed-forward block, and residual connections with norm before or after.

    ``norm1, norm2[, norm3]`` and ``linear1, linear2`` are the official names.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def residual(self, x: Tensor, norm: nn.LayerNorm, block) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(block(norm(x)))
        return norm(x + self.dropout(block(x)))

    def feedforward(self, x: Tensor) -> Tensor:
        return apply_linear(self.linear2, self.dropout(apply_linear(self.linear1, x, relu=True)))


class EncoderLayer(ResidualLayer):
    """Self-attention over the cells of the feature map, then a feed-forward block."""

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(embed_dims, feedforward_channels, dropout, pre_norm)
        self.self_attn = MultiheadAttention(embed_dims, num_heads, dropout)

    def forward(self, x: Tensor, pos: Tensor, attend_mask: Tensor | None) -> Tensor:
        """(B, N, D) with positions (B or 1, N, D) -> (B, N, D)."""

        def self_attention(x: Tensor) -> Tensor:
            located = x + pos
            return self.self_attn(located, located, x, attend_mask)

        x = self.residual(x, self.norm1, self_attention)
        return self.residual(x, self.norm2, self.feedforward)


class DecoderLayer(ResidualLayer):
    """Self-attention between queries, cross-attention to the memory, then a feed-forward block."""

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(embed_dims, feedforward_channels, dropout, pre_norm)
        self.self_attn = MultiheadAttention(embed_dims, num_heads, dropout)
        self.multihead_attn = MultiheadAttention(embed_dims, num_heads, dropout)
        self.norm3 = nn.LayerNorm(embed_dims)

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        located_memory: Tensor,
        attend_mask: Tensor | None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """One decoder layer.

        Args:
            x: (B, Q, D).
            query_pos: (B or 1, Q, D), the object queries.
            memory: (B, N, D), the encoder's output.
            located_memory: (B, N, D), the same with positions added.
            attend_mask: (B, 1, 1, N) or None.
            query_mask: (B or 1, 1, Q, Q), which queries see each other; None = all.

        Returns:
            (B, Q, D).
        """

        def self_attention(x: Tensor) -> Tensor:
            located = x + query_pos
            return self.self_attn(located, located, x, query_mask)

        def cross_attention(x: Tensor) -> Tensor:
            return self.multihead_attn(x + query_pos, located_memory, memory, attend_mask)

        x = self.residual(x, self.norm1, self_attention)
        x = self.residual(x, self.norm2, cross_attention)
        return self.residual(x, self.norm3, self.feedforward)


def run_layer(layer: nn.Module, with_cp: bool, *args: Tensor | None) -> Tensor:
    """A layer's output; with ``with_cp`` what lies between is computed again in the backward pass instead of being kept."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


class Encoder(nn.Module):
    """A stack of encoder layers; with ``pre_norm`` a final norm follows."""

    def __init__(self, num_layers: int, embed_dims: int, pre_norm: bool, with_cp: bool, **layer_kwargs) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.layers = nn.ModuleList(EncoderLayer(embed_dims, pre_norm=pre_norm, **layer_kwargs) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dims) if pre_norm else nn.Identity()

    def forward(self, x: Tensor, pos: Tensor, attend_mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        for layer in self.layers:
            x = run_layer(layer, self.with_cp, x, pos, attend_mask)
        return self.norm(x)


class Decoder(nn.Module):
    """A stack of decoder layers; every layer's output passes the one shared final norm."""

    def __init__(self, num_layers: int, embed_dims: int, pre_norm: bool, with_cp: bool, **layer_kwargs) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.layers = nn.ModuleList(DecoderLayer(embed_dims, pre_norm=pre_norm, **layer_kwargs) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dims)

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        located_memory: Tensor,
        attend_mask: Tensor | None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, D) -> (L, B, Q, D); arguments as in ``DecoderLayer.forward``."""
        states = []
        for layer in self.layers:
            x = run_layer(layer, self.with_cp, x, query_pos, memory, located_memory, attend_mask, query_mask)
            states.append(x)
        return self.norm(torch.stack(states))
