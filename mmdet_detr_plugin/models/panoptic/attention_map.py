"""Where each query looks in the memory, as maps (reference: models/segmentation.py, MHAttentionMap)."""

import torch
from torch import Tensor, nn

from ..parts import check_counts
from ..transformer_neck import Encoded


class MultiHeadAttentionMap(nn.Module):
    """Attention weights without values. The softmax runs over all heads and cells together, as in the reference.

    Raises:
        ValueError: when ``embed_dims`` is not divisible by ``num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        check_counts(embed_dims=embed_dims, num_heads=num_heads)
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims ({embed_dims}) must be divisible by num_heads ({num_heads})')
        self.num_heads = num_heads
        self.q_linear = nn.Linear(embed_dims, embed_dims)
        self.k_linear = nn.Linear(embed_dims, embed_dims)
        for layer in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden_states: Tensor, encoded: Encoded) -> Tensor:
        """(B, T, D) and the encoder's output -> (B, T, heads, h, w); 0 where padded, summing to 1 over heads and cells."""
        queries = self.q_linear(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
        keys = self.k_linear(encoded.memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, D / heads)
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)  # (B, heads, T, N)
        if encoded.attend_mask is not None:
            scores = scores.masked_fill(~encoded.attend_mask, -torch.inf)
        scores = scores.transpose(1, 2)  # (B, T, heads, N)
        return scores.flatten(2).softmax(-1).view(scores.shape).unflatten(-1, encoded.map_size)
