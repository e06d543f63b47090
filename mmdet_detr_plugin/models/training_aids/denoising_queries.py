"""Queries made from the objects themselves, with noise (DN-DETR, Li et al. 2022; with far copies as in DINO, Zhang et al. 2023)."""

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from ...devices import at_least_float32
from ...registry import MODELS
from ..position_encoding import SinePositionEncoding
from ..queries import Queries
from ..transformer_neck import TransformerNeck
from .training_step import TrainingAid, TrainingStep


@MODELS.register_module()
class DenoisingQueries(TrainingAid):
    """The decoder learns to bring near copies of the objects' boxes back, and to call far ones no-object; no matching is needed for that.

    Args:
        num_classes: K.
        jitter: config of ``JitteredBoxes``; how many copies, how far.
        loss_weight: factor on the mean over the copies.
    """

    def __init__(self, num_classes: int, jitter: dict | None = None, loss_weight: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes, self.loss_weight = num_classes, loss_weight
        self.jitter = MMDET_MODELS.build(
            dict(type='mmdet_detr_plugin.JitteredBoxes', num_classes=num_classes, label_noise=0.2) | (jitter or {})
        )

    def start(self, neck: TransformerNeck) -> None:
        dims = neck.embed_dims
        self.label_embed = nn.Embedding(self.num_classes, dims)
        self.encode = SinePositionEncoding(dims // 2)
        self.box_pos = nn.Sequential(nn.Linear(2 * dims, dims), nn.ReLU(), nn.Linear(dims, dims))
        self.has_references = neck.reference_logits is not None

    def queries(self, step: TrainingStep) -> Queries:
        self.jittered = jittered = self.jitter(step.targets, step.img_metas)
        dtype, boxes = step.encoded.memory.dtype, jittered.boxes_cxcywh_norm
        pos = self.box_pos(self.encode.encode_axis(boxes * self.encode.scale).flatten(2).to(dtype))
        logits = torch.logit(boxes[..., :2].clamp(0.01, 0.99)) if self.has_references else None
        return Queries(self.label_embed(jittered.labels).to(dtype), pos, logits, jittered.group, jittered.is_used)

    def loss(self, step: TrainingStep, hidden_states: Tensor, queries: Queries) -> dict[str, Tensor]:
        jittered, self.jittered = self.jittered, None
        hidden_states = hidden_states if step.head.aux_loss else hidden_states[-1:]
        logits, boxes = step.head(hidden_states, queries.reference_logits)
        losses = step.head.losses_of_pairs(
            logits,
            boxes,
            jittered.pairs(len(logits)),
            step.targets,
            at_least_float32(logits.detach()).log_softmax(-1),
            jittered.weights,
        )
        return {name: self.loss_weight * value for name, value in losses.items()}
