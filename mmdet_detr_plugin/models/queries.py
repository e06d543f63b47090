"""Object queries of a decoder, and who sees whom where several kinds of them go through it together.

Letters: B images, Q queries, D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Queries:
    """What a decoder starts from.

    Attributes:
        content: (B or 1, Q, D), its input; zeros in the paper.
        pos: (B or 1, Q, D), added to queries and keys of every attention.
        reference_logits: (B or 1, Q, 2), logits of the points that boxes are predicted from; None = boxes are predicted as they are.
        group: (Q,), or (B, Q) where images have other groups; queries of different groups do not see each other; None = all are one group.
        is_used: (B, Q), False for queries that nobody sees, which only make up the number; None = all are used.
    """

    content: Tensor
    pos: Tensor
    reference_logits: Tensor | None = None
    group: Tensor | None = None
    is_used: Tensor | None = None

    def __len__(self) -> int:
        return self.pos.shape[1]


def concatenate(parts: Sequence[Queries], num_images: int) -> tuple[Queries, Tensor | None]:
    """All queries together, and a mask for the self-attention that keeps the parts and their groups apart.

    Returns:
        Queries with B = ``num_images``, and (B or 1, 1, Q, Q), True = may be attended to; None for a single part without groups.
    """

    def expanded(x: Tensor) -> Tensor:
        return x.expand(num_images, *x.shape[1:])

    if len(parts) == 1 and parts[0].group is None and parts[0].is_used is None:
        return parts[0], None
    groups, start = [], 0
    for part in parts:
        group = torch.zeros(len(part), dtype=torch.long, device=part.pos.device) if part.group is None else part.group
        groups.append(group + start)
        start += len(part)  # there are never more groups than queries
    if any(group.dim() == 2 for group in groups):
        groups = [group if group.dim() == 2 else group.expand(num_images, -1) for group in groups]
    used = [part.pos.new_ones(num_images, len(part), dtype=torch.bool) if part.is_used is None else part.is_used for part in parts]
    logits = [part.reference_logits for part in parts]
    whole = Queries(
        torch.cat([expanded(part.content) for part in parts], dim=1),
        torch.cat([expanded(part.pos) for part in parts], dim=1),
        None if logits[0] is None else torch.cat([expanded(x) for x in logits], dim=1),
        torch.cat(groups, dim=-1),
        torch.cat(used, dim=1),
    )
    return whole, group_mask(whole.group, None if all(part.is_used is None for part in parts) else whole.is_used)


def group_mask(group: Tensor, is_used: Tensor | None) -> Tensor:
    """(Q,) or (B, Q), and (B, Q) -> (B or 1, 1, Q, Q), True where a query may attend to another; always to itself, since every row needs
    something.
    """
    group = group if group.dim() == 2 else group[None]
    mask = (group[:, :, None] == group[:, None])[:, None]
    if is_used is not None:
        mask = mask & is_used[:, None, None, :] | torch.eye(group.shape[1], dtype=torch.bool, device=group.device)
    return mask


def grid_points(number: int) -> Tensor:
    """``number`` points spread over the unit square, row by row: (number, 2), x and y in (0, 1)."""
    num_rows = max(1, round(number**0.5))
    rows = [number // num_rows + (row < number % num_rows) for row in range(num_rows)]
    points = [((column + 0.5) / count, (row + 0.5) / num_rows) for row, count in enumerate(rows) for column in range(count)]
    return torch.tensor(points)
