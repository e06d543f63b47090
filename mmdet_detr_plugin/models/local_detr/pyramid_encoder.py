"""From the backbone's feature maps to a memory at several strides."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS
from ..position_encoding import SinePositionEncoding
from ..transformer import Encoder
from .masked_convs import blank, convolve


@MODELS.register_module()
class PyramidEncoder(BaseModule):
    """Transformer encoder on the coarsest feature map, where every cell sees the whole image, and from there top-down to the finer ones.

    Letters: B images, C channels of a feature map, D of the memory, h x w its cells.

    Args:
        in_channels: C of each of the backbone's feature maps, finest first.
        embed_dims: D.
        norm_cfg: of the convolutions; batch norm by default.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        embed_dims: int = 256,
        num_heads: int = 8,
        num_encoder_layers: int = 1,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.embed_dims = tuple(in_channels), embed_dims
        norm_cfg = norm_cfg or dict(type='BN')
        self.input_projs = nn.ModuleList(ConvModule(c, embed_dims, 1, norm_cfg=norm_cfg, act_cfg=None) for c in in_channels)
        self.position_encoding = SinePositionEncoding(embed_dims // 2)
        self.encoder = Encoder(
            num_encoder_layers,
            embed_dims,
            pre_norm=False,
            with_cp=False,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.fusions = nn.ModuleList(ConvModule(embed_dims, embed_dims, 3, padding=1, norm_cfg=norm_cfg) for _ in in_channels)
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, feats: Sequence[Tensor], padding_masks: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Feature maps (B, C, h, w), finest first -> memory (B, D, h, w) of the same sizes.

        Args:
            padding_masks: (B, h, w) of each map, True = padding; None when nothing is padded. Padded cells change nothing at valid ones,
                and are 0 in the memory.

        Raises:
            ValueError: when the number of feature maps or their channels are others than ``in_channels``.
        """
        if tuple(feat.shape[1] for feat in feats) != self.in_channels:
            raise ValueError(
                f'The neck expects feature maps of {self.in_channels} channels, the backbone gives {[feat.shape[1] for feat in feats]}; '
                'set model.neck.in_channels and model.backbone.out_indices to fit'
            )
        masks = padding_masks or [None] * len(feats)
        projected = [convolve(proj, feat, mask) for proj, feat, mask in zip(self.input_projs, feats, masks, strict=True)]
        coarsest, padding_mask = projected[-1], masks[-1]
        pos = self.position_encoding(coarsest, padding_mask).to(coarsest.dtype).flatten(2).transpose(1, 2)  # (B, N, D)
        attend_mask = None if padding_mask is None else ~padding_mask.flatten(1)[:, None, None, :]  # (B, 1, 1, N)
        tokens = self.encoder(coarsest.flatten(2).transpose(1, 2), pos, attend_mask)
        above = tokens.transpose(1, 2).unflatten(2, coarsest.shape[-2:])  # (B, N, D) -> (B, D, h, w)
        memory = [convolve(self.fusions[-1], blank(above, padding_mask), padding_mask)]
        for feat, fusion, mask in zip(projected[-2::-1], self.fusions[-2::-1], masks[-2::-1], strict=True):
            memory.insert(0, convolve(fusion, blank(feat + F.interpolate(memory[0], feat.shape[-2:]), mask), mask))
        return memory
