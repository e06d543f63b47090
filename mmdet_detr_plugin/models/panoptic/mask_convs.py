"""From attention maps to masks, four times as fine in each direction as the finest feature map's cells allow (reference:
models/segmentation.py, MaskHeadSmallConv).

Deliberate difference from the reference: what does not depend on the query is computed once for an image. The first convolution sees the
image's features and the query's maps; by linearity it is the sum of two convolutions, of which only the small one (as many channels as
heads) runs for every query. The sums are the same up to rounding.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import check_counts


class MaskConvs(nn.Module):
    """Five convolutions, each with group norm and ReLU, that take in finer feature maps on their way.

    Args:
        embed_dims: channels D of the projected features.
        num_heads: channels of the attention maps.
        in_channels: of the feature maps at strides 4, 8 and 16.

    Raises:
        ValueError: when the channels cannot be grouped for the norms: D + heads must be divisible by 8, D by 16, and D / 2 ... D / 16
            by 8 or below it.
    """

    def __init__(self, embed_dims: int, num_heads: int, in_channels: Sequence[int]) -> None:
        super().__init__()
        check_counts(**{f'in_channels[{index}]': channels for index, channels in enumerate(in_channels)})
        widths = [embed_dims + num_heads] * 2 + [embed_dims // 2**step for step in (1, 2, 3, 4)]
        groups = [min(8, width) for width in widths]
        if len(in_channels) != 3 or embed_dims % 16 or any(width % group for width, group in zip(widths, groups, strict=True)):
            raise ValueError(
                'the mask head needs the channels of three feature maps (finest first), embed_dims divisible by 16, and widths that 8 '
                f'groups divide; got in_channels={tuple(in_channels)}, embed_dims={embed_dims}, num_heads={num_heads}: widths {widths[1:]}'
            )
        self.embed_dims = embed_dims
        self.convs = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(group, width) for group, width in zip(groups[1:], widths[1:], strict=True))
        self.adapters = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(reversed(in_channels), widths[2:5], strict=True))
        self.conv_out = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for layer in (*self.convs, *self.adapters, self.conv_out):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor, image: Tensor, projected: Tensor, feats: Sequence[Tensor]) -> Tensor:
        """Mask logits of P queries.

        Args:
            maps: (P, heads, h, w), the queries' attention maps.
            image: (P,), each query's image.
            projected: (B, D, h, w), the feature map that the encoder started from.
            feats: (B, C, h', w') at strides 4, 8 and 16.

        Returns:
            (P, H/4, W/4).
        """
        first = self.convs[0]
        of_image = F.conv2d(projected, first.weight[:, : self.embed_dims], first.bias, padding=1)
        x = F.conv2d(maps, first.weight[:, self.embed_dims :], padding=1) + of_image.index_select(0, image)
        x = F.relu(self.norms[0](x), inplace=True)
        x = F.relu(self.norms[1](self.convs[1](x)), inplace=True)
        for conv, norm, adapter, feat in zip(self.convs[2:], self.norms[2:], self.adapters, reversed(feats), strict=True):
            x = F.interpolate(x, size=feat.shape[-2:], mode='nearest') + adapter(feat).index_select(0, image)
            x = F.relu(norm(conv(x)), inplace=True)
        return self.conv_out(x)[:, 0]
