"""One query for each class of stuff, whose place is wherever its class is.

Stuff has no place of its own: the middle of a background is as good a place as any other, and backgrounds of two classes have nearly the
same box, for which queries that are selected by place compete. So stuff has a query by class, without matching (in the spirit of query
decoupling, Panoptic SegFormer, Li et al. 2022). As those of things, these queries come from a dense head: every cell that stuff covers
teaches it, from the first step on.

Letters: B images, S classes of stuff, D channels, h x w cells of a level of the memory.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...devices import at_least_float32
from ...registry import MODELS
from ..fused_linear import apply_linear
from ..local_detr.dense_head import Tower
from ..parts import check_counts, checked_weights
from ..set_criterion import average_over_ranks

PRIOR = 0.1  # of every cell's probability


@dataclass
class Stuff:
    """What was found of each class of stuff.

    Attributes:
        hidden_states: (B, S, D).
        logits: (B, S), of the class being there.
        cells: (B, S, h, w), logits of each cell.
        is_padding: (B, h, w); None where nothing is padded.
    """

    hidden_states: Tensor
    logits: Tensor
    cells: Tensor
    is_padding: Tensor | None


@MODELS.register_module()
class StuffHead(BaseModule):
    """Says for every cell which stuff it shows. A class's query is the memory averaged over where it was found.

    Args:
        num_stuff_classes: S; ``PanopticLocalDETR`` sets it.
        embed_dims: D, channels of the memory.
        num_convs: 3 x 3 convolutions before the cells' logits.
        norm_cfg: theirs; batch norm by default.
        loss_weights: of ``loss_stuff_cells``, binary cross entropy with the share of the cell that is covered, summed over classes and
            averaged over cells, so that images without stuff weigh no more than others; and of ``loss_stuff``, that of the classes being
            there, divided by how many are.
    """

    def __init__(
        self,
        num_stuff_classes: int,
        embed_dims: int = 256,
        num_convs: int = 1,
        norm_cfg: dict | None = None,
        loss_weights: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_stuff_classes=num_stuff_classes, embed_dims=embed_dims, num_convs=num_convs)
        self.embed_dims = embed_dims
        self.loss_weights = checked_weights(loss_weights, loss_stuff_cells=1.0, loss_stuff=1.0)
        self.tower = Tower(embed_dims, 1, num_convs, norm_cfg or dict(type='BN'))
        self.conv_cells = nn.Conv2d(embed_dims, num_stuff_classes, 1)
        self.query_embed = nn.Embedding(num_stuff_classes, embed_dims)
        self.content_proj = nn.Linear(embed_dims, embed_dims)
        self.content_norm = nn.LayerNorm(embed_dims)
        self.fc_present = nn.Linear(embed_dims, 1)
        nn.init.normal_(self.conv_cells.weight, std=0.01)
        nn.init.constant_(self.conv_cells.bias, bias_init_with_prob(PRIOR))
        nn.init.xavier_uniform_(self.content_proj.weight)
        for parameter in self.fc_present.parameters():
            nn.init.zeros_(parameter)

    def forward(self, memory: Tensor, padding_mask: Tensor | None) -> Stuff:
        """Look for stuff.

        Args:
            memory: (B, D, h, w), one level.
            padding_mask: (B, h, w), True = padding, which is not looked at; None when nothing is padded.
        """
        cells = self.conv_cells(self.tower(memory, 0, padding_mask))
        if padding_mask is not None:
            cells = cells.masked_fill(padding_mask[:, None], -20.0)
        flat = at_least_float32(cells).flatten(2)  # (B, S, N)
        share = flat.detach().sigmoid()
        share = (share / share.sum(-1, keepdim=True).clamp(min=1e-6)).to(memory.dtype)
        found = share @ memory.flatten(2).transpose(1, 2)  # (B, S, D)
        content = self.content_norm(apply_linear(self.content_proj, found))
        hidden_states = content + self.query_embed.weight.to(content.dtype)
        # a class is there as surely as it is in its best cell, but for what its content says
        logits = flat.amax(-1) + at_least_float32(apply_linear(self.fc_present, hidden_states)[..., 0])
        return Stuff(hidden_states, logits, cells, padding_mask)

    def loss(self, stuff: Stuff, covered: Tensor) -> dict[str, Tensor]:
        """``loss_stuff_cells`` and ``loss_stuff``.

        Args:
            covered: (B, S, h, w), the share of each cell that the class covers.
        """
        cells, logits = at_least_float32(stuff.cells), at_least_float32(stuff.logits)
        weight = torch.ones_like(cells) if stuff.is_padding is None else (~stuff.is_padding)[:, None].expand_as(cells).to(cells.dtype)
        is_present = (covered.flatten(2).amax(-1) > 0).to(logits.dtype)
        losses = dict(
            loss_stuff_cells=F.binary_cross_entropy_with_logits(cells, covered.to(cells.dtype), weight, reduction='sum')
            / average_over_ranks(weight[:, 0].sum()),
            loss_stuff=F.binary_cross_entropy_with_logits(logits, is_present, reduction='sum') / average_over_ranks(is_present.sum()),
        )
        return {name: self.loss_weights[name] * value for name, value in losses.items()}
