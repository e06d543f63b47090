"""Decoder layers that look into each query's box and refine it.

Letters: B images, Q queries, D channels, K classes, P points along each side of a box.
"""

import math
from collections.abc import Sequence

import torch
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from ...devices import at_least_float32
from ..detr_head import BoxMLP
from ..fused_linear import apply_linear
from ..transformer import ResidualLayer
from .box_attention import sample_in_boxes
from .relation_attention import OVERLAP_WITH_BETTER, RelationAttention

MAX_LOG_RATIO = math.log(1000 / 16)  # of a refined side to the side before, as in R-CNNs


class LocalDecoderLayer(ResidualLayer):
    """Self-attention between queries, what is seen in the query's box, a feed-forward block; then its class and a better box."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        value_dims: int,
        num_points: int,
        num_classes: int,
        delta_scale: float,
    ) -> None:
        super().__init__(embed_dims, feedforward_channels, dropout, pre_norm=False)
        self.self_attn = RelationAttention(embed_dims, num_heads, dropout)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.num_points, self.delta_scale = num_points, delta_scale
        # one weight for each point and channel: where in the box something is matters more than what asks for it
        self.box_attn = nn.Linear(num_points**2 * value_dims, embed_dims)
        self.fc_cls = nn.Linear(embed_dims, num_classes)
        self.box_mlp = BoxMLP(embed_dims, num_layers=2)
        # a query that overlaps a better one by more than the threshold most likely repeats it; how much that costs is learned
        self.duplicate_gain = nn.Parameter(torch.tensor(8.0))
        self.duplicate_threshold = nn.Parameter(torch.tensor(0.4))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and name.split('.')[0] not in ('fc_cls', 'box_mlp'):
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(0.01))
        for parameter in self.box_mlp.layers[-1].parameters():  # the first refinement changes nothing
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        values: Tensor,
        shapes: Sequence[tuple[int, int]],
        regions: Tensor,
        level: Tensor,
        features: Tensor,
        attend_mask: Tensor | None,
    ) -> Tensor:
        """One layer.

        Args:
            x: (B, Q, D).
            query_pos: (B, Q, D), from the boxes.
            values: (B, N, C), the memory to sample from; see ``sample_in_boxes``.
            shapes: (h, w) of each of its levels.
            regions: (B, Q, 4), what each query sees: centre and size as fractions of the memory's sides.
            level: (B, Q), the level that it sees it on.
            features: (B, Q, Q, F), of each pair of queries; see ``pair_features``.
            attend_mask: (B or 1, 1, Q, Q), True = may be attended to; None = everything may.

        Returns:
            (B, Q, D).
        """

        def self_attention(x: Tensor) -> Tensor:
            located = x + query_pos
            return self.self_attn(located, x, features, attend_mask)

        def box_attention(x: Tensor) -> Tensor:
            seen = sample_in_boxes(values, shapes, regions, level, self.num_points)
            return apply_linear(self.box_attn, seen.flatten(2))

        x = self.residual(x, self.norm1, box_attention)
        x = self.residual(x, self.norm2, self_attention)
        return self.residual(x, self.norm3, self.feedforward)

    def predict(self, x: Tensor, boxes_cxcywh_norm: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, D), (B, Q, 4) and (B, Q, Q, F) -> class logits (B, Q, K) and refined boxes (B, Q, 4)."""
        overlap = features[..., OVERLAP_WITH_BETTER].amax(-1, keepdim=True)
        penalty = self.duplicate_gain * (overlap - self.duplicate_threshold).clamp(min=0)
        deltas = self.delta_scale * at_least_float32(self.box_mlp(x))
        return apply_linear(self.fc_cls, x) - penalty, refine(boxes_cxcywh_norm, deltas)


def refine(boxes_cxcywh_norm: Tensor, deltas: Tensor) -> Tensor:
    """Move and scale boxes in units of their own size, as R-CNNs do, so that the same change looks the same for all sizes."""
    centre, size = boxes_cxcywh_norm.chunk(2, dim=-1)
    shift, log_ratio = deltas.chunk(2, dim=-1)
    return torch.cat((centre + shift * size, size * log_ratio.clamp(max=MAX_LOG_RATIO).exp()), dim=-1)
