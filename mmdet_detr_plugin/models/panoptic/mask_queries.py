"""Whose masks ``PanopticLocalDETR`` can make: the detector's queries, and one for each class of stuff behind them.

Letters: B images, Q queries of the detector, S classes of stuff, D channels, N cells of the level where masks begin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import at_least_float32
from ..local_detr.outputs import Outputs
from .mask_loss import padded
from .stuff_head import Stuff

Owners = tuple[Tensor, Tensor, Tensor]  # image, object and query (P,) of masks


@dataclass
class MaskQueries:
    """What masks are made from.

    Attributes:
        hidden_states: (B, Q + S, D).
        boxes: (B, Q + S, 4), cxcywh_norm; stuff may be anywhere.
        covered: (B, Q + S, N), the share of each cell that stuff covers, -1 for the detector's; None without queries for stuff.
        outputs: of the detector.
        stuff: of the ``StuffHead``; None without one.
    """

    hidden_states: Tensor
    boxes: Tensor
    covered: Tensor | None
    outputs: Outputs
    stuff: Stuff | None

    @classmethod
    def of(cls, outputs: Outputs, stuff: Stuff | None) -> 'MaskQueries':
        """Put both kinds together."""
        hidden_states, boxes = outputs.hidden_states, outputs.boxes[-1]
        if stuff is None:
            return cls(hidden_states, boxes, None, outputs, None)
        whole = boxes.new_tensor((0.5, 0.5, 1.0, 1.0)).expand(*stuff.logits.shape, 4)
        share = at_least_float32(stuff.cells.detach()).sigmoid().flatten(2)  # (B, S, N)
        unknown = -torch.ones_like(share[:, :1]).expand(-1, boxes.shape[1], -1)
        return cls(
            torch.cat((hidden_states, stuff.hidden_states.to(hidden_states.dtype)), 1),
            torch.cat((boxes, whole), 1),
            torch.cat((unknown, share), 1),
            outputs,
            stuff,
        )

    @property
    def num_detected(self) -> int:
        """Q."""
        return self.outputs.boxes.shape[2]

    @property
    def stuff_logits(self) -> Tensor:
        """(B, S) of the classes being there; S is 0 without queries for stuff."""
        return self.boxes.new_zeros(len(self.boxes), 0) if self.stuff is None else self.stuff.logits


def stuff_owners(samples: SampleList, num_things: int) -> Owners:
    """All stuff of a batch and its queries, which are counted from the first class of stuff."""
    found = []
    for number, sample in enumerate(samples):
        stuff = sample.gt_instances.labels - num_things
        (objects,) = (stuff >= 0).nonzero(as_tuple=True)
        found.append((torch.full_like(objects, number), objects, stuff[objects]))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def merged(*owners: Owners) -> Owners:
    """Several groups as one, ordered by image."""
    whole = [torch.cat(parts) for parts in zip(*owners, strict=True)]
    order = whole[0].argsort(stable=True)
    return tuple(part[order] for part in whole)


def covered_share(samples: SampleList, owners: Owners, size: tuple[int, int], like: Tensor) -> Tensor:
    """Of each cell (B, S, h, w) of a map, the share that each class of stuff covers, in [0, 1].

    Args:
        samples: with masks of things and stuff.
        owners: all stuff; see ``stuff_owners``.
        size: (H, W) of the padded batch.
        like: (B, S, h, w), of the result's shape.
    """
    shares = torch.zeros_like(like, dtype=torch.float32, requires_grad=False)
    for image, target, label in zip(*map(Tensor.tolist, owners), strict=True):
        mask = padded(samples[image].gt_instances.masks[target], size)
        shares[image, label] = F.adaptive_avg_pool2d(mask[None].float(), like.shape[-2:])[0]
    return shares


def repeated(queries: Tensor) -> Tensor:
    """(B, n) -> (B, n), True where the same query has come before."""
    number = torch.arange(queries.shape[1], device=queries.device)
    return ((queries[:, :, None] == queries[:, None]) & (number[:, None] > number)).any(-1)


def gather(values: Sequence[Tensor | None], queries: Tensor) -> list[Tensor | None]:
    """(B, Q + S, C) each -> (B, n, C), those of queries (B, n)."""
    return [None if x is None else x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1])) for x in values]
