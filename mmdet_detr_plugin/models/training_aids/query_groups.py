"""More groups of object queries, each matched to the objects by itself (Group DETR, Chen et al. 2023)."""

import torch
from torch import Tensor, nn

from ...registry import MODELS
from ..queries import Queries
from ..transformer_neck import TransformerNeck
from .training_step import TrainingAid, TrainingStep


@MODELS.register_module()
class QueryGroups(TrainingAid):
    """``num_groups`` groups beside the detector's own queries, as many queries in each; groups do not see each other.

    The decoder then learns from several queries for each object, while a group still has to tell duplicates apart.

    Args:
        loss_weight: factor on the mean over the groups.
    """

    def __init__(self, num_groups: int = 2, loss_weight: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_groups < 1:
            raise ValueError(f'num_groups counts the groups beside the own queries and must be at least 1, got {num_groups}')
        self.num_groups, self.loss_weight = num_groups, loss_weight

    def start(self, neck: TransformerNeck) -> None:
        self.num_queries = neck.num_queries
        self.query_embed = nn.Embedding(self.num_groups * neck.num_queries, neck.embed_dims)
        self.reference_logits = None
        if neck.reference_logits is not None:
            points = neck.reference_logits.detach().sigmoid().repeat(1, self.num_groups, 1)  # (1, G * Q, 2)
            points = (points + (torch.rand_like(points) - 0.5) * neck.num_queries**-0.5).clamp(0.01, 0.99)  # by half a cell of the grid
            self.reference_logits = nn.Parameter(torch.logit(points), requires_grad=neck.reference_logits.requires_grad)
            self.query_embed.weight.data.copy_(neck.position_encoding.encode_points(points[0]))

    def queries(self, step: TrainingStep) -> Queries:
        pos = self.query_embed.weight[None].to(step.encoded.memory.dtype)
        group = torch.arange(self.num_groups, device=pos.device).repeat_interleave(self.num_queries)
        return Queries(pos.new_zeros(()).expand_as(pos), pos, self.reference_logits, group)

    def loss(self, step: TrainingStep, hidden_states: Tensor, queries: Queries) -> dict[str, Tensor]:
        outputs = step.head(hidden_states, queries.reference_logits)
        # a group is an image more with the same objects: (L, B, G * Q, ...) -> (L, B * G, Q, ...)
        outputs = [x.unflatten(2, (self.num_groups, -1)).flatten(1, 2) for x in outputs]
        gt_instances = [instances for instances in step.gt_instances for _ in range(self.num_groups)]
        img_metas = [meta for meta in step.img_metas for _ in range(self.num_groups)]
        losses = step.head.loss_by_feat(*outputs, gt_instances, img_metas)
        return {name: self.loss_weight * value for name, value in losses.items()}
