"""Self-attention between queries that knows how their boxes lie to each other, and which scores higher.

That is what telling duplicates apart takes: two queries that have found the same object look alike, have the same box, and differ in their
scores alone. (In the spirit of relation networks, Hu et al. 2018.)

Letters: B images, Q queries, D channels, H heads, F features of a pair of queries.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...boxes import aligned_iou, cxcywh_to_xyxy
from ...devices import at_least_float32
from ..dropout import dropout
from ..fused_linear import apply_linear
from ..transformer import MultiheadAttention

NUM_FEATURES = 7
OVERLAP_WITH_BETTER = 2  # among them


class RelationAttention(MultiheadAttention):
    """Multi-head self-attention whose weights and outputs also depend on features of each pair of queries.

    Args:
        relation_dims: channels R that each pair's features become.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0, relation_dims: int = 16) -> None:
        super().__init__(embed_dims, num_heads, dropout)
        self.relation = nn.Linear(NUM_FEATURES, relation_dims)
        self.relation_bias = nn.Linear(relation_dims, num_heads)
        self.relation_proj = nn.Linear(num_heads * relation_dims, embed_dims)

    def forward(self, located: Tensor, x: Tensor, features: Tensor, attend_mask: Tensor | None = None) -> Tensor:
        """Attend between queries.

        Args:
            located: (B, Q, D), the queries with their positions.
            x: (B, Q, D), the queries.
            features: (B, Q, Q, F), from ``pair_features``.
            attend_mask: (B or 1, 1, Q, Q), True = may be attended to; None = everything may.

        Returns:
            (B, Q, D).
        """
        q, k, v = self.project(located, located, x)
        relation = F.relu(apply_linear(self.relation, features.to(x.dtype)))  # (B, Q, Q, R)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + apply_linear(self.relation_bias, relation).permute(0, 3, 1, 2)
        if attend_mask is not None:
            scores = scores.masked_fill(~attend_mask, -torch.inf)
        weights = at_least_float32(scores).softmax(-1).to(v.dtype)  # (B, H, Q, Q)
        if self.training:
            weights = dropout(weights, self.dropout)
        attended = (weights @ v).transpose(1, 2).flatten(2)  # (B, H, Q, D/H) -> (B, Q, D)
        seen = torch.einsum('bhqk,bqkr->bqhr', weights, relation.to(weights.dtype)).flatten(2)
        return apply_linear(self.out_proj, attended) + apply_linear(self.relation_proj, seen)


def pair_features(boxes_cxcywh_norm: Tensor, scores: Tensor, attend_mask: Tensor | None = None) -> Tensor:
    """How every query's box lies to every other's, and whether the other scores higher; without gradient.

    Args:
        boxes_cxcywh_norm: (B, Q, 4).
        scores: (B, Q).
        attend_mask: (B or 1, 1, Q, Q); features of pairs that do not see each other are 0.

    Returns:
        (B, Q, Q, F).
    """
    boxes, scores = boxes_cxcywh_norm.detach().float(), scores.detach().float()
    corners = cxcywh_to_xyxy(boxes)
    overlap = aligned_iou(corners[:, :, None], corners[:, None])
    is_better = (scores[:, None] > scores[:, :, None]).float()  # the other's score is higher
    centre, size = boxes[..., :2], boxes[..., 2:].clamp(min=1e-4)
    shift = ((centre[:, None] - centre[:, :, None]).abs() / size[:, :, None]).log1p()  # (B, Q, Q, 2)
    ratio = (size[:, None] / size[:, :, None]).log()
    features = torch.cat((torch.stack((overlap, is_better, overlap * is_better), dim=-1), shift, ratio), dim=-1)
    return features if attend_mask is None else features * attend_mask[:, 0, :, :, None]
