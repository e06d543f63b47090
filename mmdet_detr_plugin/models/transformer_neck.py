"""From the backbone's feature map to the decoder's hidden states (paper, section 3.2; reference: models/detr.py, models/transformer.py)."""

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS
from .transformer import Decoder, Encoder


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

    Raises:
        ValueError: when the position encoding's channels do not add up to ``embed_dims``.
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
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.embed_dims, self.num_queries = in_channels, embed_dims, num_queries
        self.input_proj = nn.Conv2d(in_channels, embed_dims, kernel_size=1)
        if position_encoding is None:
            position_encoding = dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=embed_dims // 2)
        self.position_encoding = MMDET_MODELS.build(position_encoding)
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
        if feats.shape[1] != self.in_channels:
            raise ValueError(
                f'The neck expects {self.in_channels} input channels, the backbone gives {feats.shape[1]}; '
                f'set model.neck.in_channels={feats.shape[1]}'
            )
        projected = self.input_proj(feats)
        pos = self.position_encoding(projected, padding_mask).to(projected.dtype)
        tokens, pos = projected.flatten(2).transpose(1, 2), pos.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)
        attend_mask = None if padding_mask is None else ~padding_mask.flatten(1)[:, None, None, :]  # (B, 1, 1, N)

        memory = self.encoder(tokens, pos, attend_mask)
        # a copy, because a view of a parameter claims to need gradients even under no_grad, which confuses torch's FLOP counter
        query_pos = self.query_embed.weight[None].to(memory.dtype, copy=True)  # (1, Q, D)
        queries = memory.new_zeros(len(feats), self.num_queries, self.embed_dims)
        hidden_states = self.decoder(queries, query_pos, memory, memory + pos, attend_mask)
        return hidden_states, memory.transpose(1, 2).unflatten(2, feats.shape[-2:])
