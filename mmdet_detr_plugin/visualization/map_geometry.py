"""From the cells of a feature map to the pixels of the original image and back.

A cell of a map with w columns stands for a w-th of the padded batch's width, as in the paper's figures.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..models.detector import feature_padding_mask


@dataclass(frozen=True)
class MapGeometry:
    """Where a feature map lies on an image whose pipeline resizes it and pads it on the right and at the bottom. Sizes: (height, width).

    Attributes:
        image_size: of the original image.
        resized_size: of the image as the network gets it, without padding.
        batch_size: with padding.
        map_size: of the feature map.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    batch_size: tuple[int, int]
    map_size: tuple[int, int]

    @cached_property
    def valid_size(self) -> tuple[int, int]:
        """Rows and columns of the map that are image and not padding."""
        mask = feature_padding_mask([self.resized_size], self.batch_size, self.map_size, torch.device('cpu'))
        if mask is None:
            return self.map_size
        return int((~mask[0]).any(1).sum()), int((~mask[0]).any(0).sum())

    @property
    def batch_in_pixels(self) -> tuple[float, float]:
        """Height and width of the padded batch, in pixels of the original image."""
        return tuple(batch * image / resized for batch, image, resized in zip(self.batch_size, self.image_size, self.resized_size))

    @property
    def cell_size(self) -> tuple[float, float]:
        """Height and width of a cell, in pixels of the original image."""
        return tuple(side / cells for side, cells in zip(self.batch_in_pixels, self.map_size))

    def cell_at(self, x: float, y: float) -> int:
        """The cell, counted row by row, that holds a point of the original image.

        Raises:
            ValueError: when the point lies outside the image.
        """
        height, width = self.image_size
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f'the point {x:g},{y:g} lies outside the image of {width} x {height} pixels')
        row, column = (min(int(at / size), count - 1) for at, size, count in zip((y, x), self.cell_size, self.valid_size))
        return row * self.map_size[1] + column

    def box_of_cell(self, cell: int) -> tuple[float, float, float, float]:
        """The cell's box_xyxy_abs in the original image; the last row and column may reach beyond it."""
        row, column = divmod(cell, self.map_size[1])
        height, width = self.cell_size
        return column * width, row * height, (column + 1) * width, (row + 1) * height

    def without_padding(self, weights: np.ndarray) -> np.ndarray:
        """(..., N) weights of all cells -> (..., rows, columns) of those that are image."""
        rows, columns = self.valid_size
        return weights.reshape(*weights.shape[:-1], *self.map_size)[..., :rows, :columns]

    def raster(self, weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Weights (N,) over the whole original image, as a raster of any size (height, width); linear between the cells' centres."""
        cells = self.without_padding(weights)
        vertical, horizontal = (
            _interpolation(pixels, image / cell, count)
            for pixels, image, cell, count in zip(size, self.image_size, self.cell_size, cells.shape)
        )
        return vertical @ cells @ horizontal.T


def _interpolation(pixels: int, length: float, cells: int) -> np.ndarray:
    """(pixels, cells), what each cell contributes to each pixel of an axis that is ``length`` cells long; beyond the outer centres their
    values stay."""
    centres = np.arange(cells) + 0.5
    centres[-1] = (cells - 1 + min(cells, length)) / 2  # of what is seen of the last one
    positions = (np.arange(pixels) + 0.5) * length / pixels
    return np.stack([np.interp(positions, centres, one) for one in np.eye(cells)], axis=1)
