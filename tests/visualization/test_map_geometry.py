"""What lies in a cell of the feature map is shown where it lies in the original image."""

import numpy as np
import pytest

from mmdet_detr_plugin.visualization.map_geometry import MapGeometry

# resized to 3/4 and 2/3 (not the same in both directions), padded on the right and at the bottom: cells of 32 pixels there
GEOMETRY = MapGeometry(image_size=(200, 300), resized_size=(150, 200), batch_size=(192, 256), map_size=(6, 8))


def test_geometry_by_hand():
    assert GEOMETRY.valid_size == (5, 7)  # 150 / 32 and 200 / 32, rounded up: a cell is image where its first pixel is
    np.testing.assert_allclose(GEOMETRY.batch_in_pixels, (256, 384))
    np.testing.assert_allclose(GEOMETRY.cell_size, (32 * 4 / 3, 32 * 3 / 2))
    assert GEOMETRY.cell_at(0, 0) == 0 and GEOMETRY.cell_at(47.9, 42.6) == 0
    assert GEOMETRY.cell_at(48.1, 42.7) == 8 + 1 and GEOMETRY.cell_at(300, 200) == 4 * 8 + 6  # never into padding
    np.testing.assert_allclose(GEOMETRY.box_of_cell(8 + 2), (96, 128 / 3, 144, 256 / 3))


@pytest.mark.parametrize('cell', [0, 8 + 2, 4 * 8 + 6, 3 * 8])
@pytest.mark.parametrize('size', [(200, 300), (100, 150), (61, 47)])
def test_planted_attention_is_brightest_in_its_cell(cell, size):
    weights = np.zeros(48)
    weights[cell] = 1.0
    raster = GEOMETRY.raster(weights, size)
    assert raster.shape == size and raster.max() > 0.8
    y, x = np.argwhere(raster == raster.max()).mean(0) + 0.5
    x0, y0, x1, y1 = GEOMETRY.box_of_cell(cell)
    assert x0 <= x * 300 / size[1] <= x1 and y0 <= y * 200 / size[0] <= y1
    assert GEOMETRY.cell_at(min(300, (x0 + x1) / 2), min(200, (y0 + y1) / 2)) == cell


def test_raster_is_exact_at_centres_linear_between_them_and_level_outside():
    geometry = MapGeometry((42, 84), (42, 84), (42, 84), (2, 4))
    weights = np.arange(8.0)
    raster = geometry.raster(weights, (42, 84))
    for cell in range(8):
        x0, y0, x1, y1 = geometry.box_of_cell(cell)
        np.testing.assert_allclose(raster[int((y0 + y1) / 2), int((x0 + x1) / 2)], weights[cell], atol=1e-12)
    np.testing.assert_allclose(raster[0, :11], 0)
    np.testing.assert_allclose(np.diff(raster[0, 10:74]), 1 / 21)
    np.testing.assert_allclose(geometry.raster(np.full(8, 0.125), (7, 3)), 0.125)


def test_padding_neither_shows_nor_dims_the_image_beside_it():
    weights = np.where(np.arange(48).reshape(6, 8) % 8 < 7, 0.5, 0.0)
    weights[5] = 0
    np.testing.assert_allclose(GEOMETRY.raster(weights.ravel(), (200, 300)), 0.5)


@pytest.mark.parametrize('point', [(-1, 5), (301, 5), (5, 200.5), (float('nan'), 5)])
def test_points_outside_are_refused(point):
    with pytest.raises(ValueError, match='lies outside the image of 300 x 200 pixels'):
        GEOMETRY.cell_at(*point)


def test_image_of_one_pixel():
    geometry = MapGeometry((1, 1), (320, 320), (320, 320), (10, 10))
    assert geometry.cell_at(0.5, 0.5) == 55 and geometry.raster(np.ones(100), (1, 1)) == 1
