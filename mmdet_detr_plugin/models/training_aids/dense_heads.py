"""Dense heads on the encoder's memory, each object being learned at many places at once (as in Co-DETR, Zong et al. 2023)."""

import copy
from collections.abc import Sequence

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import ModuleDict
from torch import Tensor

from ...registry import MODELS
from ..queries import Queries
from .training_step import TrainingAid, TrainingStep


@MODELS.register_module()
class DenseHeads(TrainingAid):
    """mmdet's dense heads (ATSS, FCOS, RTMDet ...) with one level, the memory.

    Backbone and encoder get a gradient from every object at once, however few of them the decoder has found yet. On several ranks mmdet's
    heads divide by the number of positive locations averaged over ranks and at least 1, so that with fewer locations than ranks their
    gradients are smaller than one process's.

    Args:
        heads: configs by names of yours; each with its own ``train_cfg``, and with one stride, the memory's.
        loss_weight: factor on all their losses.
    """

    def __init__(self, heads: dict[str, dict], loss_weight: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.loss_weight = loss_weight
        self.heads = ModuleDict({name: MMDET_MODELS.build(copy.deepcopy(head)) for name, head in heads.items()})

    def loss(self, step: TrainingStep, hidden_states: Tensor | None, queries: Queries | None) -> dict[str, Tensor | Sequence[Tensor]]:
        losses = {}
        for head_name, head in self.heads.items():
            for name, value in head.loss((step.encoded.memory_map,), step.samples).items():
                values = [self.loss_weight * x for x in (value if isinstance(value, (list, tuple)) else [value])]
                losses[f'{head_name}.{name}'] = values
        return losses
