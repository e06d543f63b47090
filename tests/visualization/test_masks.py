"""Masks of a panoptic model beside its attention."""

import re

import numpy as np
import pytest
import torch

from mmdet_detr_plugin.prediction.inputs import read_frames
from mmdet_detr_plugin.visualization.attention_figures import attention_figures
from mmdet_detr_plugin.visualization.attention_page import render_page
from mmdet_detr_plugin.visualization.panels import outline

KINDS = pytest.mark.parametrize('kind', ['panoptic', 'panoptic_local'])


@KINDS
def test_masks_are_those_of_the_shown_queries_in_pixels_of_the_file(look, predictors, photo, kind):
    predictor = predictors(kind)
    head = predictor.model.bbox_head
    fc_cls = head.fc_cls if kind == 'panoptic' else head.layers[-1].fc_cls

    def with_opinions(layer, args, logits):  # queries that do not all say the same
        return logits + 3 * torch.randn(logits.shape[-2:], generator=torch.Generator().manual_seed(0))

    handle = fc_cls.register_forward_hook(with_opinions)
    image = look(kind, score_thr=1.0, top=6)
    (frame,) = read_frames(photo)
    ((_, sample),) = predictor([frame])
    handle.remove()
    assert image.masks.shape == (6, 90, 200) and image.masks.dtype == bool
    things = [number for number, name in enumerate(image.label_names) if name in predictor.classes[:4]]
    assert things
    found = sample.pred_instances
    for number in things:
        nearest = (found.bboxes - torch.from_numpy(image.boxes[-1, number])).abs().amax(1) + (found.scores - image.scores[-1, number]).abs()
        assert nearest.min() < 0.02
        np.testing.assert_array_equal(found.masks[nearest.argmin()].numpy(), image.masks[number])


def test_figure_lights_each_mask_and_the_page_outlines_it(look):
    image = look('panoptic', top=2)
    image.masks = np.zeros((2, 90, 200), dtype=bool)
    image.masks[0, 10:30, 20:50] = True
    image.masks[0, 15:20, 30:40] = False  # a hole
    figures = dict(attention_figures(image, [(10, 10)]))
    assert list(figures) == ['encoder', 'cross', 'masks', 'queries', 'boxes']
    (first, second) = (axis for axis in figures['masks'].axes if axis.images)
    shown = first.images[0].get_array()
    np.testing.assert_array_equal(shown[image.masks[0]], image.pixels[image.masks[0]])
    assert (shown[~image.masks[0]] <= 0.36 * 255).all() and first.get_title(loc='left').endswith('3.1% of the image')
    assert second.images[0].get_array().max() < 0.36 * 255
    paths = re.findall(r'"mask": ?"([^"]*)"', render_page(image, 't', 'm'))
    assert len(paths) == 2 and paths[0].count('M') == 2 and paths[0].count('z') == 2 and paths[1] == ''
    assert 'M20 10L' in paths[0]


def test_outlines_close_around_areas_and_holes():
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8], mask[3:6, 3:6] = True, False
    outer, hole = sorted(outline(mask), key=lambda polygon: polygon.min())
    assert sorted(map(tuple, outer.tolist())) == [(1, 1), (1, 7), (7, 1), (7, 7)]
    assert hole.min() == 2 and hole.max() == 6  # OpenCV draws holes along the pixels around them


@KINDS
def test_recording_changes_no_result(look, predictors, photo, kind):
    (frame,) = read_frames(photo)
    results = []
    for _ in range(2):
        ((_, sample),) = predictors(kind)([frame])
        results.append(sample.pred_panoptic_seg.sem_seg)
        look(kind)
    assert torch.equal(*results)
