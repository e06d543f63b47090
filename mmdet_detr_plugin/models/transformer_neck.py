"""From the backbone's feature map to the decoder's hidden states (paper, section 3.2; reference: models/detr.py, models/transformer.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS
from .parts import build_model_part, check_counts
from .position_encoding import SinePositionEncoding
from .queries import Queries, concatenate, grid_points
from .transformer import Decoder, Encoder


@dataclass
class Encoded:
    """What the encoder gives to the decoder.

    Attributes:
        memory: (B, N, D).
        pos: (B or 1, N, D), the cells' positions.
        attend_mask: (B, 1, 1, N), True = may be attended to; None = everything may.
        map_size: (h, w), with h * w = N.
        projected_map: (B, D, h, w), what the encoder started from.
    """

    memory: Tensor
    pos: Tensor
    attend_mask: Tensor | None
    map_size: tuple[int, int]
    projected_map: Tensor

    @property
    def memory_map(self) -> Tensor:
        """(B, D, h, w)."""
        return self.memory.transpose(1, 2).unflatten(2, self.map_size)


@MODELS.register_module()
class TransformerNeck(BaseModule):
    """1x1 projection, position encoding, transformer encoder and decoder with learned object queries.

    Args:
        in_channels: channels C of the backbone's last feature map.
        embed_dims: channels D of the transformer.
        feedforward_channels: width of the feed-forward blocks.
        num_queries: Q; also the most objects that can be found in one image.
        pre_norm: layer norm before each block instead of after it; the encoder then ends in a norm of its own.
        with_cp: keep only each layer's input for the backward pass, and compute the rest again: less memory, more time.
        position_encoding: config of ``SinePositionEncoding`` (default) or ``LearnedPositionEncoding``, with D/2 channels an axis.
        reference_points: ``'grid'`` starts the object queries from the position encoding of points on a grid, and lets boxes be predicted
            from these points; ``'learned'`` lets the points move in training. None as in the paper: queries start at random. At inference
            the network has Q points more, and one addition.
        look_near: start the decoder's cross-attention with equal projections of queries and keys, drawn as usual and multiplied by this
            number, so that a query attends to cells of similar position first; 0 as in the paper: they are drawn independently. How near
            depends on the position encoding: with the paper's, whose shortest wave is as long as the image, cells beside each other are
            all but equal. The network stays the same.

    Raises:
        ValueError: when a count is too small, the position encoding's channels do not add up to ``embed_dims``, or ``reference_points`` is
            unknown or without sine encoding.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        num_queries: int = 100,
        pre_norm: bool = False,
        position_encoding: dict | None = None,
        with_cp: bool = False,
        reference_points: str | None = None,
        look_near: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(in_channels=in_channels, embed_dims=embed_dims, feedforward_channels=feedforward_channels, num_queries=num_queries)
        check_counts(num_decoder_layers=num_decoder_layers)
        check_counts(0, num_encoder_layers=num_encoder_layers)
        self.in_channels, self.embed_dims, self.num_queries = in_channels, embed_dims, num_queries
        self.input_proj = nn.Conv2d(in_channels, embed_dims, kernel_size=1)
        if position_encoding is None:
            position_encoding = dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=embed_dims // 2)
        self.position_encoding = build_model_part(position_encoding, 'position_encoding')
        if self.position_encoding.embed_dims != embed_dims:
            raise ValueError(
                f'The position encoding has {self.position_encoding.embed_dims} channels (2 x num_feats), embed_dims is {embed_dims}; '
                f'set position_encoding.num_feats={embed_dims // 2}'
            )
        layer_kwargs = dict(
            embed_dims=embed_dims,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
            pre_norm=pre_norm,
            with_cp=with_cp,
        )
        self.encoder = Encoder(num_encoder_layers, **layer_kwargs)
        self.decoder = Decoder(num_decoder_layers, **layer_kwargs)
        self.query_embed = nn.Embedding(num_queries, embed_dims)
        # As the reference does: every matrix of the transformer, including the packed projections as one matrix.
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if look_near:
            for layer in self.decoder.layers:
                weight = layer.multihead_attn.in_proj_weight.data
                weight[:embed_dims] *= look_near
                weight[embed_dims : 2 * embed_dims] = weight[:embed_dims]
        self._start_from_points(reference_points)

    def _start_from_points(self, kind: str | None) -> None:
        if kind not in (None, 'grid', 'learned'):
            raise ValueError(f"reference_points must be 'grid', 'learned' or None, got {kind!r}")
        self.reference_logits = None
        if kind is None:
            return
        if not isinstance(self.position_encoding, SinePositionEncoding):
            raise ValueError(f'reference_points={kind!r} needs SinePositionEncoding, got {type(self.position_encoding).__name__}')
        points = grid_points(self.num_queries)
        self.query_embed.weight.data.copy_(self.position_encoding.encode_points(points))
        logits = torch.logit(points)[None]  # (1, Q, 2)
        if kind == 'learned':
            self.reference_logits = nn.Parameter(logits)
        else:
            del self.reference_logits
            self.register_buffer('reference_logits', logits)

    def forward(self, feats: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the transformer on one feature map.

        Args:
            feats: (B, C, h, w).
            padding_mask: (B, h, w), True = padding; None when nothing is padded. Padded cells are never attended to.

        Returns:
            hidden_states (L, B, Q, D) of all decoder layers, and memory (B, D, h, w), the encoder's output.

        Raises:
            ValueError: when C is not ``in_channels``.
        """
        encoded = self.encode(feats, padding_mask)
        return self.decode_own(encoded), encoded.memory_map

    def encode(self, feats: Tensor, padding_mask: Tensor | None = None) -> Encoded:
        """Projection, positions and encoder; arguments as in ``forward``."""
        if feats.shape[1] != self.in_channels:
            raise ValueError(
                f'The neck expects {self.in_channels} input channels, the backbone gives {feats.shape[1]}; '
                f'set model.neck.in_channels={feats.shape[1]}'
            )
        projected = self.input_proj(feats)
        pos = self.position_encoding(projected, padding_mask).to(projected.dtype)
        tokens, pos = projected.flatten(2).transpose(1, 2), pos.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        attend_mask = None if padding_mask is None else ~padding_mask.flatten(1)[:, None, None, :]  # (B, 1, 1, N)
        return Encoded(self.encoder(tokens, pos, attend_mask), pos, attend_mask, tuple(feats.shape[-2:]), projected)

    def queries(self, dtype: torch.dtype) -> Queries:
        """The learned object queries; their content is zero."""
        # a copy, because a view of a parameter claims to need gradients even under no_grad, which confuses torch's FLOP counter
        pos = self.query_embed.weight[None].to(dtype, copy=True)  # (1, Q, D)
        return Queries(pos.new_zeros(()).expand(1, self.num_queries, self.embed_dims), pos, self.reference_logits)

    def decode_own(self, encoded: Encoded) -> Tensor:
        """Hidden states (L, B, Q, D) of the learned queries alone, as at inference."""
        return self.decode(encoded, [self.queries(encoded.memory.dtype)])

    def decode(self, encoded: Encoded, parts: Sequence[Queries]) -> Tensor:
        """Hidden states (L, B, Q, D) of all queries, in the order of the parts, which do not see each other."""
        num_images = encoded.memory.shape[0]  # len() would be a constant in exported graphs
        queries, query_mask = concatenate(parts, num_images)
        content = queries.content.expand(num_images, -1, -1)
        return self.decoder(content, queries.pos, encoded.memory, encoded.memory + encoded.pos, encoded.attend_mask, query_mask)
