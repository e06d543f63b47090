"""The data set that faults are planted in."""

import pytest

from .planting import plant_data


@pytest.fixture
def root(shapes_dir, tmp_path):
    return plant_data(shapes_dir, tmp_path)
