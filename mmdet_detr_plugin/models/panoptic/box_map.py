"""Where each query's box lies, and what in the image looks like the query, as maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...devices import integers
from ..local_detr.dense_head import cell_centres
from ..parts import check_counts

NUM_OF_BOX = 8  # maps of the box
DIMS = 32  # of each comparison of a query with a cell


class BoxMap(nn.Module):
    """Maps of a query's box, and products of the query with the memory's cells.

    Of the box: the share of each cell that it covers; the cell's place in it, along both axes, from -1 to 1 within the box; the cell's
    distance to its four sides, in cells; its size. All are clamped to be of the size of 1, so that they count from the start. Boxes get no
    gradient from them: a mask tells where in its box an object is, not where the box should be.

    Args:
        embed_dims: channels D of queries and memory.
        num_products: maps of products.
    """

    def __init__(self, embed_dims: int, num_products: int) -> None:
        super().__init__()
        check_counts(embed_dims=embed_dims, num_products=num_products)
        self.num_products = num_products
        self.q_linear = nn.Linear(embed_dims, num_products * DIMS)
        self.k_linear = nn.Conv2d(embed_dims, num_products * DIMS, 1)
        for layer in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden_states: Tensor, regions: Tensor, memory: Tensor, covered: Tensor | None = None) -> Tensor:
        """Maps of all queries.

        Args:
            hidden_states: (B, T, D).
            regions: (B, T, 4), the boxes: centre and size as fractions of the memory's sides.
            memory: (B, D, h, w).
            covered: (B, T, h, w), the share of each cell that a query covers where more is known of it than its box; below 0 elsewhere.

        Returns:
            (B, T, 8 + products, h, w).
        """
        shape = memory.shape[-2:]
        queries = self.q_linear(hidden_states).unflatten(-1, (self.num_products, DIMS))  # (B, T, S, d)
        keys = self.k_linear(memory).flatten(2).unflatten(1, (self.num_products, DIMS))  # (B, S, d, N)
        products = (queries.transpose(1, 2) * DIMS**-0.5) @ keys  # (B, S, T, N)
        of_box = maps_of_boxes(regions.detach().float(), shape)
        if covered is not None:
            known = covered.detach().float()
            of_box = torch.cat((torch.where(known < 0, of_box[:, :, 0], known)[:, :, None], of_box[:, :, 1:]), dim=2)
        of_box = of_box.to(products.dtype)
        return torch.cat((of_box, products.transpose(1, 2).unflatten(-1, shape)), dim=2)


def maps_of_boxes(regions: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, T, 4), centre and size as fractions of a map's sides -> (B, T, 8, h, w), each in [-1, 1]."""
    height, width = shape
    sides = integers((width, height), regions.device).to(regions.dtype)
    centres = cell_centres([(height, width)], regions.device) * sides  # (N, 2), x and y in cells
    centre, size = (regions[:, :, None] * sides.repeat(2)).chunk(2, dim=-1)  # (B, T, 1, 2) each, in cells
    size = size.clamp(min=1e-3)
    offset = centres - centre  # (B, T, N, 2)
    to_low, to_high = offset + size / 2, size / 2 - offset
    # along each axis, how much of the cell lies in the box
    covered = (torch.minimum(to_low, torch.full_like(to_low, 0.5)) + torch.minimum(to_high, torch.full_like(to_high, 0.5))).clamp(0, 1)
    maps = (
        covered.prod(-1, keepdim=True),
        (2 * offset / size).clamp(-1, 1),
        (to_low / 2).clamp(-1, 1),
        (to_high / 2).clamp(-1, 1),
        (size.prod(-1, keepdim=True).sqrt() / sides.prod().sqrt()).clamp(max=1).expand_as(offset[..., :1]),
    )
    return torch.cat(maps, dim=-1).transpose(2, 3).unflatten(-1, (height, width))
