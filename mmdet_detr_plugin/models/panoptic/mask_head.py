"""One mask for each query, from where it looks in the memory (paper, section 4.4 and figure 8)."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS
from ..transformer_neck import Encoded
from .attention_map import MultiHeadAttentionMap
from .mask_convs import MaskConvs
from .mask_loss import mask_losses

CHUNK = 16  # masks at a time where no gradients are needed: they are large, and their number then is that of all queries


@MODELS.register_module()
class DETRMaskHead(BaseModule):
    """Multi-head attention maps over the memory, and convolutions that bring them to stride 4.

    Group norm sees padded cells, as in the reference: masks of a padded batch differ a little from those of single images.

    Args:
        in_channels: channels of the backbone's feature maps at strides 4, 8 and 16.
        embed_dims: channels D of the hidden states and the memory.
        num_heads: attention maps for each query; 8 in the official models.
        map_gain: start the first convolution's weights of the attention maps this many times as large; 1 as in the official code. A map
            sums to 1 over heads and cells, so that beside the image's features, which are all of the size of 1, its share of the sum is one
            part in heads x cells: a short training never finds it, and all queries keep the same mask. ``heads x cells`` makes them equal.
            The network stays the same.
        loss_mask: focal loss: ``alpha``, ``gamma`` and ``loss_weight``.
        loss_dice: dice loss: ``loss_weight``.

    Raises:
        ValueError: for channels that do not fit, or a loss of another kind.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024),
        embed_dims: int = 256,
        num_heads: int = 8,
        map_gain: float = 1.0,
        loss_mask: dict | None = None,
        loss_dice: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.embed_dims = tuple(in_channels), embed_dims
        self.loss_mask = _checked(loss_mask, dict(type='FocalLoss', alpha=0.25, gamma=2.0, loss_weight=1.0), 'loss_mask')
        self.loss_dice = _checked(loss_dice, dict(type='DiceLoss', loss_weight=1.0), 'loss_dice')
        self.attention = MultiHeadAttentionMap(embed_dims, num_heads)
        self.mask_convs = MaskConvs(embed_dims, num_heads, in_channels)
        if not map_gain > 0:
            raise ValueError(f'map_gain must be above 0, got {map_gain}')
        self.mask_convs.convs[0].weight.data[:, embed_dims:] *= map_gain

    def forward(self, hidden_states: Tensor, encoded: Encoded, feats: Sequence[Tensor], chosen: Tensor | None = None) -> Tensor:
        """Mask logits of queries.

        Args:
            hidden_states: (B, T, D), of the last decoder layer.
            feats: (B, C, h, w) at strides 4, 8 and 16.
            chosen: (B, T), True for the queries whose masks are wanted; None = all. The others cost nothing.

        Returns:
            (P, H/4, W/4), in the order of images and queries.
        """
        maps = self.attention(hidden_states, encoded)  # (B, T, heads, h, w)
        image = torch.arange(maps.shape[0], device=maps.device)[:, None].expand(maps.shape[:2])
        maps, image = (maps.flatten(0, 1), image.flatten()) if chosen is None else (maps[chosen], image[chosen])
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing() or len(image) <= CHUNK:
            return self.mask_convs(maps, image, encoded.projected_map, feats)
        parts = zip(maps.split(CHUNK), image.split(CHUNK), strict=True)
        return torch.cat([self.mask_convs(*part, encoded.projected_map, feats) for part in parts])

    def loss(self, logits: Tensor, targets: Sequence[Tensor], size: tuple[int, int], num_objects: Tensor) -> dict[str, Tensor]:
        """``loss_mask`` and ``loss_dice`` of matched queries.

        Args:
            logits: (P, h, w).
            targets: P masks.
            size: (H, W) of the padded batch.
            num_objects: what the sums are divided by.
        """
        focal, dice = mask_losses(logits, targets, size, self.loss_mask['alpha'], self.loss_mask['gamma'])
        return dict(
            loss_mask=self.loss_mask['loss_weight'] * focal.sum() / num_objects,
            loss_dice=self.loss_dice['loss_weight'] * dice.sum() / num_objects,
        )


def _checked(config: dict | None, default: dict, name: str) -> dict:
    merged = {**default, **(config or {})}
    if str(merged['type']).removeprefix('mmdet.') != default['type'] or set(merged) != set(default):
        raise ValueError(f'{name} must be {default["type"]} with the keys {sorted(set(default) - {"type"})}, got {config}')
    return merged
