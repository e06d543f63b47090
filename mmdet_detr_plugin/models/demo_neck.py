"""The minimal DETR of the paper's appendix A.6 and of the authors' notebook: torch's own transformer, no masks, one decoder output."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS
from .position_encoding import LearnedPositionEncoding


@MODELS.register_module()
class DemoNeck(BaseModule):
    """1x1 projection, learned row and column embeddings, ``nn.Transformer``, learned queries as the decoder's input.

    Padding is attended to like image, so evaluate it at batch size 1.

    Args:
        in_channels: channels C of the backbone's last feature map.
        embed_dims: channels D of the transformer.
        num_queries: Q.
        feature_scale: factor on the projected features before positions are added: 1 in the paper's listing, 0.1 in the notebook, for
            which weights were released.
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
        feature_scale: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.embed_dims, self.feature_scale = embed_dims, feature_scale
        self.input_proj = nn.Conv2d(in_channels, embed_dims, kernel_size=1)
        self.position_encoding = LearnedPositionEncoding(embed_dims // 2)
        self.query_embed = nn.Embedding(num_queries, embed_dims)
        nn.init.uniform_(self.query_embed.weight)
        self.transformer = nn.Transformer(
            embed_dims, num_heads, num_encoder_layers, num_decoder_layers, feedforward_channels, dropout, batch_first=True
        )

    def forward(self, feats: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> hidden states (1, B, Q, D) of the last layer, and the encoder's input (B, D, h, w). The mask is not used."""
        located = self.feature_scale * self.input_proj(feats) + self.position_encoding(feats, None)
        queries = self.query_embed.weight.expand(feats.shape[0], -1, -1)  # (B, Q, D)
        hidden_states = self.transformer(located.flatten(2).transpose(1, 2), queries)  # (B, D, h, w) -> (B, N, D)
        return hidden_states[None], located
