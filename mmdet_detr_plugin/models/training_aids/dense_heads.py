"""Dense heads on the encoder's memory, each object being learned at many places at once (as in Co-DETR, Zong et al. 2023)."""

import copy
import math
from collections.abc import Sequence

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import ModuleDict
from torch import Tensor, nn

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

    Raises:
        ValueError: in ``loss``, when a head's strides are not the memory's: its objects would be taught to other cells.
    """

    def __init__(self, heads: dict[str, dict], loss_weight: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.loss_weight = loss_weight
        self.heads = ModuleDict({name: MMDET_MODELS.build(copy.deepcopy(head)) for name, head in heads.items()})

    def loss(self, step: TrainingStep, hidden_states: Tensor | None, queries: Queries | None) -> dict[str, Tensor | Sequence[Tensor]]:
        losses = {}
        for head_name, head in self.heads.items():
            _check_strides(head_name, head, step.batch_shape, step.encoded.map_size)
            for name, value in head.loss((step.encoded.memory_map,), step.samples).items():
                values = [self.loss_weight * x for x in (value if isinstance(value, (list, tuple)) else [value])]
                losses[f'{head_name}.{name}'] = values
        return losses


def _check_strides(name: str, head: nn.Module, batch_shape: tuple[int, int], map_size: tuple[int, int]) -> None:
    """Heads that have no strides take them from the sizes, and cannot be wrong."""
    strides = getattr(getattr(head, 'prior_generator', head), 'strides', None)
    if strides is None:
        return
    pairs = [tuple(stride) if isinstance(stride, Sequence) else (stride, stride) for stride in strides]  # width before height, as in mmdet
    if len(pairs) != 1 or not _fits(pairs[0][::-1], batch_shape, map_size):
        cells, pixels = ('{} x {}'.format(*sides) for sides in (map_size, batch_shape))
        raise ValueError(
            f'The dense head {name!r} has strides={list(strides)}; expected one, the stride of the memory, which has {cells} cells for a '
            f"batch of {pixels} pixels. Write strides=[{_stride(batch_shape, map_size)}] where the head's config has its strides (its own, "
            'its anchor_generator, its point_strides)'
        )


def _fits(stride: tuple[int, int], batch_shape: tuple[int, int], map_size: tuple[int, int]) -> bool:
    """Whether a map has this stride; layers may round odd sizes up or down."""
    return all(side // step <= cells <= -(-side // step) for side, step, cells in zip(batch_shape, stride, map_size, strict=True))


def _stride(batch_shape: tuple[int, int], map_size: tuple[int, int]) -> int:
    """The stride of a map; rounding leaves several in small batches, of which backbones have the power of two."""
    exact = max(side / cells for side, cells in zip(batch_shape, map_size, strict=True))
    power = 2 ** round(math.log2(exact))
    return power if _fits((power, power), batch_shape, map_size) else round(exact)
