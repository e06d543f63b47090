"""Sizes followed through pipelines, against mmdet's own transforms."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

from mmdet_detr_plugin.preflight.image_sizes import is_random_in_size, output_sizes

SIZES = [(640, 480), (333, 500), (128, 128)]


@pytest.mark.parametrize(
    'transform',
    [
        dict(type='Resize', scale=(1333, 800), keep_ratio=True),
        dict(type='Resize', scale=(800, 1333), keep_ratio=True),
        dict(type='Resize', scale=(320, 240)),
        dict(type='Resize', scale=100),
        dict(type='Resize', scale_factor=0.5, keep_ratio=True),
        dict(type='FixScaleResize', scale=(1333, 800), keep_ratio=True),
        dict(type='ResizeShortestEdge', scale=400, max_size=600),
        dict(type='RandomChoiceResize', scales=[(1333, 480)], keep_ratio=True),
    ],
    ids=str,
)
def test_one_size_comes_out_as_mmdet_makes_it(transform):
    for width, height in SIZES:
        image = np.zeros((height, width, 3), np.uint8)
        result = TRANSFORMS.build(transform)(dict(img=image, img_shape=image.shape[:2]))['img'].shape
        (ours,) = output_sizes([transform], (np.array([float(width)]), np.array([float(height)])))
        assert np.abs(np.subtract(result[:2], (ours[1][0], ours[0][0]))).max() <= 1  # mmdet's shortest edge rounds down


def test_ranges_and_choices_give_their_two_ends():
    size = (np.array([200.0]), np.array([100.0]))
    choice = [
        [dict(type='RandomChoiceResize', scales=[(50, 9999), (75, 9999), (60, 9999)], keep_ratio=True)],
        [dict(type='RandomCrop', crop_size=(10, 10)), dict(type='Resize', scale=(9999, 80), keep_ratio=True)],
    ]
    for pipeline, heights in (
        ([dict(type='RandomChoice', transforms=choice)], [50, 80]),
        ([dict(type='RandomResize', scale=(200, 100), ratio_range=(0.5, 2.0), keep_ratio=True)], [50, 200]),
        ([dict(type='RandomResize', scale=[(200, 100), (400, 200)], keep_ratio=True)], [100, 200]),
        ([dict(type='RandomFlip', prob=0.5)], [100]),
    ):
        assert [result[1][0] for result in output_sizes(pipeline, size)] == heights
        assert [result[0][0] for result in output_sizes(pipeline, size)] == [2 * height for height in heights]


def test_random_sizes_are_recognised_inside_choices():
    scales = dict(type='RandomChoiceResize', scales=[(50, 99), (60, 99)])
    assert is_random_in_size([dict(type='RandomChoice', transforms=[[dict(type='RandomFlip')], [scales]])])
    assert not is_random_in_size([dict(type='RandomFlip'), dict(type='Resize', scale=(3, 4)), {**scales, 'scales': [(50, 99)]}])
