"""One mask for each query, from where it looks in the memory (paper, section 4.4 and figure 8), or from where its box is."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS
from ..parts import checked_loss
from ..transformer_neck import Encoded
from .attention_map import MultiHeadAttentionMap
from .box_map import NUM_OF_BOX, BoxMap
from .mask_convs import MaskConvs
from .mask_loss import mask_losses

CHUNK = 16  # masks at a time where no gradients are needed: they are large, and their number then is that of all queries


class MaskHead(BaseModule):
    """Convolutions that bring maps of each query to stride 4, and the losses of the masks; which maps, subclasses say.

    Group norm sees padded cells, as in the reference: masks of a padded batch differ a little from those of single images.

    Args:
        in_channels: channels of the feature maps at strides 4, 8 and 16.
        embed_dims: channels D of the hidden states and the memory.
        loss_mask: focal loss: ``alpha``, ``gamma`` and ``loss_weight``.
        loss_dice: dice loss: ``loss_weight``.

    Raises:
        ValueError: for channels that do not fit, or a loss of another kind.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        embed_dims: int,
        loss_mask: dict | None = None,
        loss_dice: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels, self.embed_dims = tuple(in_channels), embed_dims
        self.loss_mask = checked_loss(loss_mask, dict(type='FocalLoss', alpha=0.25, gamma=2.0, loss_weight=1.0), 'loss_mask')
        self.loss_dice = checked_loss(loss_dice, dict(type='DiceLoss', loss_weight=1.0), 'loss_dice')

    def masks_of_maps(self, maps: Tensor, projected: Tensor, feats: Sequence[Tensor], chosen: Tensor | None) -> Tensor:
        """Mask logits.

        Args:
            maps: (B, T, maps, h, w).
            projected: (B, D, h, w).
            feats: (B, C, h, w) at strides 4, 8 and 16.
            chosen: (B, T), True for the queries whose masks are wanted; None = all. The others cost nothing.

        Returns:
            (P, H/4, W/4), in the order of images and queries.
        """
        image = torch.arange(maps.shape[0], device=maps.device)[:, None].expand(maps.shape[:2])
        maps, image = (maps.flatten(0, 1), image.flatten()) if chosen is None else (maps[chosen], image[chosen])
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing() or len(image) <= CHUNK:
            return self.mask_convs(maps, image, projected, feats)
        parts = zip(maps.split(CHUNK), image.split(CHUNK), strict=True)
        return torch.cat([self.mask_convs(*part, projected, feats) for part in parts])

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


@MODELS.register_module()
class DETRMaskHead(MaskHead):
    """Masks from multi-head attention maps over the memory.

    Args:
        in_channels: channels of the backbone's feature maps at strides 4, 8 and 16.
        num_heads: attention maps for each query; 8 in the official models.
        map_gain: start the first convolution's weights of the attention maps this many times as large; 1 as in the official code. A map
            sums to 1 over heads and cells, so that beside the image's features, which are all of the size of 1, its share of the sum is one
            part in heads x cells: a short training never finds it, and all queries keep the same mask. ``heads x cells`` makes them equal.
            The network stays the same.
        kwargs: ``loss_mask``, ``loss_dice`` and ``init_cfg``; see ``MaskHead``.

    Raises:
        ValueError: for channels that do not fit, or a loss of another kind.
    """

    def __init__(
        self, in_channels: Sequence[int] = (256, 512, 1024), embed_dims: int = 256, num_heads: int = 8, map_gain: float = 1.0, **kwargs
    ) -> None:
        super().__init__(in_channels, embed_dims, **kwargs)
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
        return self.masks_of_maps(self.attention(hidden_states, encoded), encoded.projected_map, feats, chosen)


@MODELS.register_module()
class BoxMaskHead(MaskHead):
    """Masks from maps of the queries' boxes; for ``PanopticLocalDETR``, whose queries attend to no map of the image.

    Args:
        in_channels: channels of the memory's levels at strides 4, 8 and 16.
        num_products: maps for each query beside the 8 of its box, from products with the memory.
        kwargs: ``loss_mask``, ``loss_dice`` and ``init_cfg``; see ``MaskHead``.

    Raises:
        ValueError: for channels that do not fit, or a loss of another kind.
    """

    def __init__(self, in_channels: Sequence[int] = (256, 512, 1024), embed_dims: int = 256, num_products: int = 8, **kwargs) -> None:
        super().__init__(in_channels, embed_dims, **kwargs)
        self.box_map = BoxMap(embed_dims, num_products)
        self.mask_convs = MaskConvs(embed_dims, NUM_OF_BOX + num_products, in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        regions: Tensor,
        memory: Tensor,
        feats: Sequence[Tensor],
        chosen: Tensor | None = None,
        covered: Tensor | None = None,
    ) -> Tensor:
        """Mask logits of queries.

        Args:
            hidden_states: (B, T, D), of the last decoder layer.
            regions: (B, T, 4), the queries' boxes: centre and size as fractions of the padded batch's sides.
            memory: (B, D, h, w), the level at stride 16.
            feats: (B, C, h, w) at strides 4, 8 and 16.
            chosen: (B, T), True for the queries whose masks are wanted; None = all. The others cost nothing.
            covered: (B, T, h, w), see ``BoxMap``.

        Returns:
            (P, H/4, W/4), in the order of images and queries.
        """
        return self.masks_of_maps(self.box_map(hidden_states, regions, memory, covered), memory, feats, chosen)
