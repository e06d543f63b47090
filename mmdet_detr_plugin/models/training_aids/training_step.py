"""What a training aid works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.structures import SampleList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ..queries import Queries
from ..targets import Targets
from ..transformer_neck import Encoded, TransformerNeck


@dataclass
class TrainingStep:
    """One step of a detector.

    Attributes:
        encoded: the encoder's output.
        samples: the batch.
        targets: its objects as padded tensors.
        head: the detector's ``DETRHead``.
        batch_shape: (H, W) of the padded batch, in pixels.
    """

    encoded: Encoded
    samples: SampleList
    targets: Targets
    head: BaseModule
    batch_shape: tuple[int, int]

    @property
    def img_metas(self) -> list[dict]:
        return [sample.metainfo for sample in self.samples]

    @property
    def gt_instances(self) -> list[InstanceData]:
        return [sample.gt_instances for sample in self.samples]


class TrainingAid(BaseModule):
    """Takes part in ``DETR.loss``: may send queries of its own through the decoder, and gives losses."""

    def start(self, neck: TransformerNeck) -> None:
        """Initial values that depend on the neck's; called once, when the detector is built."""

    def queries(self, step: TrainingStep) -> Queries | None:
        """Queries to go through the decoder beside the detector's own, which they do not see."""

    def loss(self, step: TrainingStep, hidden_states: Tensor | None, queries: Queries | None) -> dict[str, Tensor | Sequence[Tensor]]:
        """Losses by name.

        Args:
            hidden_states: (L, B, Q, D), what became of the queries.
            queries: as returned by ``queries``.
        """
        raise NotImplementedError
