"""One query for each class of stuff, which knows from the start what it looks for.

Stuff has no place of its own: the middle of a background is as good a place as any other, and backgrounds of two classes have nearly the
same box, for which queries that are selected by place compete. So stuff has a query by class, without matching. (In the spirit of query
decoupling, Panoptic SegFormer, Li et al. 2022.)

Letters: B images, S classes of stuff, D channels.
"""

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...devices import at_least_float32
from ...registry import MODELS
from ..fused_linear import apply_linear
from ..parts import check_counts
from ..position_encoding import SinePositionEncoding
from ..transformer import Decoder


@MODELS.register_module()
class StuffHead(BaseModule):
    """Decoder layers from one learned query for each class of stuff to the memory, and whether the class is there.

    Args:
        num_stuff_classes: S; ``PanopticLocalDETR`` sets it.
        embed_dims: D, channels of the memory.
        loss_weight: of ``loss_stuff``, the binary cross entropy of the classes' presence, divided by how many are present.
    """

    def __init__(
        self,
        num_stuff_classes: int,
        embed_dims: int = 256,
        num_layers: int = 1,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_stuff_classes=num_stuff_classes, embed_dims=embed_dims, num_layers=num_layers)
        self.num_queries, self.embed_dims, self.loss_weight = num_stuff_classes, embed_dims, loss_weight
        self.query_embed = nn.Embedding(num_stuff_classes, embed_dims)
        self.position_encoding = SinePositionEncoding(embed_dims // 2)
        self.decoder = Decoder(
            num_layers,
            embed_dims,
            pre_norm=False,
            with_cp=False,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.fc_present = nn.Linear(embed_dims, 1)
        for parameter in self.decoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_present.bias, bias_init_with_prob(0.1))

    def forward(self, memory: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Look at the image.

        Args:
            memory: (B, D, h, w), one level.
            padding_mask: (B, h, w), True = padding; None when nothing is padded.

        Returns:
            Hidden states (B, S, D), and logits (B, S) of the classes' presence.
        """
        tokens = memory.flatten(2).transpose(1, 2)  # (B, N, D)
        pos = self.position_encoding(memory, padding_mask).to(memory.dtype).flatten(2).transpose(1, 2)
        attend_mask = None if padding_mask is None else ~padding_mask.flatten(1)[:, None, None, :]  # (B, 1, 1, N)
        query_pos = self.query_embed.weight[None].to(tokens.dtype)
        x = torch.zeros_like(query_pos).expand(len(tokens), -1, -1)
        x = self.decoder(x, query_pos, tokens, tokens + pos, attend_mask)[-1]
        return x, apply_linear(self.fc_present, x)[..., 0]

    def loss(self, logits: Tensor, is_present: Tensor) -> dict[str, Tensor]:
        """``loss_stuff`` of logits (B, S), for presence (B, S) of bool."""
        target = is_present.to(at_least_float32(logits).dtype)
        num_present = reduce_mean(target.sum()).clamp(min=1 / get_world_size())
        summed = F.binary_cross_entropy_with_logits(at_least_float32(logits), target, reduction='sum')
        return dict(loss_stuff=self.loss_weight * summed / num_present)
