"""Query slots over a data set: what is counted, and what is drawn."""

import json

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from mmdet_detr_plugin.comparison.inference import ordered_loader
from mmdet_detr_plugin.prediction.trained_model import load_model
from mmdet_detr_plugin.visualization.query_slots import KINDS, QuerySlots, collect_slots, slots_figure

from ..builders import randomize_norm_layers
from .conftest import load

BOXES = np.array(
    [
        [[0.5, 0.5, 0.1, 0.1], [0.2, 0.3, 0.5, 0.4]],  # 200 x 100 pixels: small; 100 x 40: wider than high
        [[0.6, 0.5, 0.4, 0.1], [0.8, 0.7, 0.4, 0.5]],  # 100 x 100 pixels: exactly the limit, 40 x 10; 40 x 50: higher than wide
    ]
)
SLOTS = QuerySlots(BOXES, np.array([[200, 100], [100, 100]]), [7, 9])


def test_kinds_by_hand():
    names = list(KINDS)
    assert [[names[kind] for kind in row] for row in SLOTS.kinds] == [
        ['small', 'large horizontal'],
        ['large horizontal', 'large vertical'],
    ]


def test_shape_counts_in_pixels_and_not_in_fractions():
    wide = QuerySlots(np.array([[[0.5, 0.5, 0.4, 0.5]]]), np.array([[300, 100]]), [1])
    assert list(KINDS)[wide.kinds[0, 0]] == 'large horizontal'


def test_summary_holds_moments_shares_and_boxes():
    summary = json.loads(json.dumps(SLOTS.summary()))
    assert summary['image_ids'] == [7, 9] and [slot['slot'] for slot in summary['slots']] == [0, 1]
    first = summary['slots'][0]
    assert first['mean_cxcywh_norm'] == [0.55, 0.5, 0.25, 0.1] and first['std_cxcywh_norm'] == [0.05, 0, 0.15, 0]
    assert first['shares'] == {'small': 0.5, 'large horizontal': 0.5, 'large vertical': 0.0}
    assert first['boxes_cxcywh_norm'] == BOXES[:, 0].tolist()


def test_panels_show_every_centre_in_the_colour_of_its_kind():
    figure = slots_figure(SLOTS)
    drawn = []
    for number, axis in enumerate(figure.axes):
        assert axis.get_title() == f'slot {number}' and axis.get_ylim() == (1, 0)  # downwards, as in images
        for points in axis.collections:
            colour = to_hex(points.get_facecolor()[0]).upper()
            drawn += [(number, *map(float, place), colour) for place in np.ma.getdata(points.get_offsets())]
    green, red, blue = KINDS.values()
    assert sorted(drawn) == sorted([(0, 0.5, 0.5, green), (0, 0.6, 0.5, red), (1, 0.2, 0.3, red), (1, 0.8, 0.7, blue)])


@pytest.mark.parametrize(('number', 'shown'), [(20, 20), (None, 31), (3, 3), (99, 31)])
def test_number_of_panels(number, shown):
    figure = slots_figure(QuerySlots(np.full((2, 31, 4), 0.5), np.full((2, 2), 100), [1, 2]), number)
    assert sum(axis.get_title().startswith('slot') for axis in figure.axes) == shown
    assert f'{shown} of 31 query slots on 2 images' in figure.get_suptitle()


def test_slots_are_the_boxes_of_all_queries_in_their_order(shapes_dir):
    cfg = load('detr')
    cfg.test_dataloader.dataset.data_root = f'{shapes_dir}/'
    model = load_model(cfg, None, 'cpu')
    randomize_norm_layers(model)  # or all images look alike
    slots = collect_slots(model, ordered_loader(cfg.test_dataloader, batch_size=3))
    assert slots.boxes_cxcywh_norm.shape == (8, model.neck.num_queries, 4) and len(set(slots.image_ids)) == 8
    with torch.no_grad():
        layers = [model(**model.data_preprocessor(batch), mode='tensor')[1] for batch in ordered_loader(cfg.test_dataloader, batch_size=8)]
    np.testing.assert_allclose(slots.boxes_cxcywh_norm, layers[0][-1], atol=1e-4)
    assert (layers[0][-1] - layers[0][0]).abs().max() > 1e-2
    assert (slots.image_sizes == [128, 128]).all()  # of the files, not of what the network gets


def test_models_without_slots_and_empty_data_are_refused(predictors):
    with pytest.raises(ValueError, match='got LocalDETR, which chooses its queries anew in every image: a slot has no role there'):
        collect_slots(predictors('local').model, [])
    with pytest.raises(ValueError, match="query slots are the learned queries of the plugin's DETR, got FasterRCNN$"):
        collect_slots(predictors('faster_rcnn').model, [])
    with pytest.raises(ValueError, match='the test data holds no image'):
        collect_slots(predictors('detr').model, [])
