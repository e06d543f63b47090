"""From masks to segments, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmdet_detr_plugin.deployment import segments
from mmdet_detr_plugin.models.panoptic.post_processing import at_batch_size, instance_masks, panoptic_map

THINGS, CLASSES = 2, 4  # labels 0 and 1 are things, 2 and 3 stuff


def stacked(*rows: str) -> torch.Tensor:
    """Logits of one mask for each digit in a drawing: 5 where the digit is, 0 elsewhere."""
    drawing = torch.tensor([[int(cell) for cell in row] for row in rows])
    return torch.stack([(drawing == query) * 5.0 for query in range(int(drawing.max()) + 1)])


def test_things_are_numbered_and_stuff_is_not():
    seg = panoptic_map(stacked('000111', '000111', '222333'), torch.tensor([1, 1, 2, 3]), THINGS, CLASSES, (3, 6))
    # the two stuff segments have 3 pixels each, and are dropped as too small
    assert seg.tolist() == [[1001] * 3 + [2001] * 3] * 2 + [[1001] * 6]
    seg = panoptic_map(stacked('000111', '000111', '222333'), torch.tensor([1, 1, 2, 3]), THINGS, CLASSES, (6, 12))
    assert seg[::2, ::2].tolist() == [[1001] * 3 + [2001] * 3] * 2 + [[2] * 3 + [3] * 3] and seg.dtype == torch.int32


def test_stuff_of_one_class_becomes_one_segment():
    logits = stacked('0000222', '0000222', '1111222')
    seg = panoptic_map(logits, torch.tensor([2, 2, 0]), THINGS, CLASSES, (3, 7))
    assert seg.tolist() == [[2, 2, 2, 2, 1000, 1000, 1000]] * 3


def test_every_pixel_goes_to_the_highest_logit_and_small_segments_to_the_next():
    logits = torch.tensor([[[1.0, 2.0, 3.0, 1.0, 1.0, 1.0]], [[0.0, 4.0, 0.0, 0.0, 0.0, 0.0]]])
    seg = panoptic_map(logits, torch.tensor([0, 1]), THINGS, CLASSES, (1, 6))
    assert seg.tolist() == [[1000] * 6]
    seg = panoptic_map(logits, torch.tensor([0, 1]), THINGS, CLASSES, (5, 6))  # 5 pixels are enough
    assert seg.tolist() == [[1000, 2001, 1000, 1000, 1000, 1000]] * 5


@pytest.mark.parametrize('shape, out_shape', [((40, 50), (24, 30)), ((24, 30), (40, 50)), ((21, 33), (29, 20))])
def test_segments_are_scaled_as_by_pillow(shape, out_shape):
    """As the reference does (Image.NEAREST, from the centres of pixels); in an exported file's post-processing too."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(1, 4, 6, 7, generator=generator), shape, mode='bilinear')[0]
    labels = torch.tensor([0, 1, 2, 3])
    owner = Image.fromarray(logits.argmax(0).numpy().astype('uint8'))
    scaled = torch.from_numpy(np.array(owner.resize(out_shape[::-1], Image.NEAREST))).long()
    expected = torch.tensor([1000, 2001, 2, 3])[scaled]
    assert torch.equal(panoptic_map(logits, labels, THINGS, CLASSES, out_shape).long(), expected)
    sizes = segments.Sizes(batch=shape, img=shape, ori=out_shape)
    assert (segments.panoptic_map(logits.numpy(), labels.numpy(), sizes, THINGS, CLASSES) == expected.numpy()).all()


@pytest.mark.parametrize('shape', [(3, 4), (1, 1)])
def test_nothing_sure_or_nothing_large_is_void(shape):
    assert (panoptic_map(torch.zeros(0, 2, 2), torch.zeros(0, dtype=torch.long), THINGS, CLASSES, shape) == CLASSES).all()
    seg = panoptic_map(torch.zeros(1, 2, 2), torch.tensor([0]), THINGS, CLASSES, (2, 2))
    assert (seg == CLASSES).all()  # 4 pixels


def test_one_segment_covers_the_image_and_a_hundred_do():
    seg = panoptic_map(torch.zeros(1, 8, 8), torch.tensor([3]), THINGS, CLASSES, (16, 16))
    assert (seg == 3).all()
    logits = torch.eye(100).view(100, 10, 10)
    seg = panoptic_map(logits, torch.arange(100) % 2, THINGS, CLASSES, (30, 30))
    assert len(seg.unique()) == 100 and (seg.unique(return_counts=True)[1] == 9).all()
    assert seg[0, 0] == 1000 and seg[-1, -1] == 100001


def test_padding_is_cut_off_before_scaling():
    """An image of 8 x 8 in a batch of 8 x 16: what lies beyond column 8 has no part in the result."""
    logits = torch.zeros(1, 2, 4)
    logits[0, :, :2], logits[0, :, 2:] = 1.0, -9.0
    large = at_batch_size(logits, (8, 16), (8, 8))
    assert large.shape == (1, 8, 8)
    masks = instance_masks(logits, (8, 16), (8, 8), (16, 16))
    assert masks.shape == (1, 16, 16) and torch.equal(masks[0, ::2, ::2], large[0] > 0)
    assert instance_masks(logits[:0], (8, 16), (8, 8), (16, 16)).shape == (0, 16, 16)
