"""What LocalDETR's head is given and what it computes.

Letters: L decoder layers, B images, Q queries, D channels, K classes.
"""

from dataclasses import dataclass

from torch import Tensor

from ..hungarian_assigner import Pairs


@dataclass
class View:
    """Where the images of a batch lie in it.

    Attributes:
        scale: (B, 1, 4), width, height, width, height of each image without padding, as fractions of the padded batch's.
        padding_masks: (B, h, w) of each level, True = padding; None where nothing is padded.
    """

    scale: Tensor
    padding_masks: list[Tensor | None]


@dataclass
class Outputs:
    """What the head computes.

    Attributes:
        logits: (L, B, Q, K), the selected queries first, then the extra ones; ``head.NOTHING`` of selected ones that are padding.
        boxes: (L, B, Q, 4), cxcywh_norm; ``head.NOWHERE`` of these.
        hidden_states: (B, Q, D), of the last layer.
        dense: what the dense head returned.
        num_selected: how many queries were selected.
        is_used: (B, num_selected), False where a selected query is padding; None where nothing is padded.
    """

    logits: Tensor
    boxes: Tensor
    hidden_states: Tensor
    dense: tuple
    num_selected: int
    is_used: Tensor | None


@dataclass
class Step:
    """What a training step computes.

    Attributes:
        losses: by name.
        outputs: what they were computed from.
        pairs: of the selected queries and the objects.
        num_objects: what box losses are divided by.
    """

    losses: dict[str, Tensor]
    outputs: Outputs
    pairs: Pairs
    num_objects: Tensor
