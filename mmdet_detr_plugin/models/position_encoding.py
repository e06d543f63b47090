"""Position encodings of the feature map's cells (paper, section 3.2 and appendix A.4; reference: models/position_encoding.py).

Deliberate differences from the reference: without padding the encoding is computed once for the batch, and a learned table that is too
small for the feature map gives an error that says so.
"""

import math

import torch
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class SinePositionEncoding(nn.Module):
    """Fixed two-dimensional sine encoding: half of the channels for y, half for x.

    Args:
        num_feats: channels for each axis; the encoding has twice as many.
        temperature: the ratio of the longest wavelength to the shortest.
        normalize: measure positions relative to each image's own unpadded size, so that they run up to ``scale``.
        scale: only with ``normalize``.
    """

    def __init__(self, num_feats: int = 128, temperature: float = 10000.0, normalize: bool = True, scale: float = 2 * math.pi) -> None:
        super().__init__()
        if num_feats % 2:
            raise ValueError(f'num_feats must be even (pairs of sine and cosine), got {num_feats}')
        self.num_feats, self.temperature, self.normalize, self.scale = num_feats, temperature, normalize, scale

    @property
    def embed_dims(self) -> int:
        return 2 * self.num_feats

    def forward(self, feats: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Encode the cells of a feature map.

        Args:
            feats: (B, D, h, w); only its shape and device are used.
            padding_mask: (B, h, w), True = padding; None when nothing is padded.

        Returns:
            (B, D, h, w) in float32, or (1, D, h, w) without padding.
        """
        h, w = feats.shape[-2:]
        if padding_mask is None:
            y = torch.arange(1, h + 1, dtype=torch.float32, device=feats.device)[None, :, None].expand(1, h, w)
            x = torch.arange(1, w + 1, dtype=torch.float32, device=feats.device)[None, None, :].expand(1, h, w)
        else:
            valid = ~padding_mask
            # of integers: torch's sum of floating-point numbers has no deterministic form on GPUs
            y, x = (valid.cumsum(axis, dtype=torch.long).to(torch.float32) for axis in (1, 2))
        if self.normalize:
            eps = 1e-6  # a row or column of nothing but padding
            y = y / (y[:, -1:, :] + eps) * self.scale
            x = x / (x[:, :, -1:] + eps) * self.scale
        return torch.cat((self.encode_axis(y), self.encode_axis(x)), dim=3).permute(0, 3, 1, 2)

    def encode_points(self, points: Tensor) -> Tensor:
        """(..., 2), x and y as fractions of an image's sides -> (..., D), what a cell gets that ends there: cells count from one.

        Raises:
            ValueError: when positions are not normalised.
        """
        if not self.normalize:
            raise ValueError('points are fractions of the image, so the position encoding must have normalize=True')
        x, y = (points * self.scale).unbind(-1)
        return torch.cat((self.encode_axis(y), self.encode_axis(x)), dim=-1)

    def encode_axis(self, position: Tensor) -> Tensor:
        """(...) -> (..., num_feats), sine and cosine alternating; positions as they come out of normalisation."""
        channel = torch.arange(self.num_feats, dtype=torch.float32, device=position.device)
        wavelength = self.temperature ** (2 * channel.div(2, rounding_mode='floor') / self.num_feats)
        angle = position[..., None] / wavelength
        return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


@MODELS.register_module()
class LearnedPositionEncoding(nn.Module):
    """Learned embeddings of columns and rows, concatenated: half of the channels for x, half for y.

    Args:
        num_feats: channels for each axis; the encoding has twice as many.
        num_rows: rows of the table; the official weights have 50.
        num_cols: columns of the table; the official weights have 50.
    """

    def __init__(self, num_feats: int = 128, num_rows: int = 50, num_cols: int = 50) -> None:
        super().__init__()
        self.num_feats = num_feats
        self.row_embed = nn.Embedding(num_rows, num_feats)
        self.col_embed = nn.Embedding(num_cols, num_feats)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    @property
    def embed_dims(self) -> int:
        return 2 * self.num_feats

    def forward(self, feats: Tensor, padding_mask: Tensor | None) -> Tensor:
        """(B, D, h, w) -> (1, D, h, w); padding does not enter.

        Raises:
            ValueError: when the feature map has more rows or columns than the table.
        """
        h, w = feats.shape[-2:]
        if h > self.row_embed.num_embeddings or w > self.col_embed.num_embeddings:
            raise ValueError(
                f'The learned position encoding has {self.row_embed.num_embeddings} rows and {self.col_embed.num_embeddings} columns, '
                f'the feature map {h} x {w}. Use smaller images, a larger table (num_rows, num_cols), or SinePositionEncoding.'
            )
        y = self.row_embed.weight[:h, None, :].expand(h, w, -1)
        x = self.col_embed.weight[None, :w, :].expand(h, w, -1)
        return torch.cat((x, y), dim=-1).permute(2, 0, 1)[None]
