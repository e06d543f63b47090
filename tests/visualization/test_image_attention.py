"""What is shown of an image: mmdet's detections, in the pixels of the file, with their attention."""

import cv2
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from mmdet_detr_plugin.prediction.inputs import Frame, read_frames
from mmdet_detr_plugin.visualization.attention_figures import attention_figures, choice_of
from mmdet_detr_plugin.visualization.attention_files import write_attention
from mmdet_detr_plugin.visualization.image_attention import MOST_SHOWN, class_scores, look_at, shown_first
from mmdet_detr_plugin.visualization.panels import LEAST_PEAK, Panel, brightest, draw_panels, overlay, rgb_of


@pytest.mark.parametrize('kind', ['detr', 'local'])
def test_best_queries_are_the_detections_in_pixels_of_the_file(kind, look, predictors, photo):
    image = look(kind, score_thr=0.9, top=3)
    (frame,) = read_frames(photo)
    predictor = predictors(kind)
    ((_, sample),) = predictor([frame])
    found = sample.pred_instances
    geometry = image.geometry
    assert (geometry.image_size, geometry.resized_size, geometry.batch_size) == ((90, 200), (100, 150), (128, 160))
    np.testing.assert_allclose(image.scores[-1, 0], found.scores[0], rtol=1e-5)
    np.testing.assert_allclose(image.boxes[-1, 0], found.bboxes[0], rtol=1e-4, atol=1e-3)
    assert image.label_names[0] == predictor.classes[found.labels[0]]
    assert (np.diff(image.scores[-1]) <= 0).all() and len(image.query) == 3
    np.testing.assert_array_equal(image.pixels, frame.pixels[..., ::-1])
    np.testing.assert_allclose(image.all_boxes[image.query], image.boxes[-1])


@pytest.mark.parametrize('kind', ['detr', 'local'])
def test_attention_of_shown_queries_comes_from_their_rows(kind, look):
    image = look(kind, top=20)
    between = image.query_weights(0)
    whole = image.record.queries[0].weights(0).numpy()
    np.testing.assert_allclose(between[:, :20], whole[np.ix_(image.query, image.query)], rtol=1e-6)
    np.testing.assert_allclose(between.sum(1), 1, rtol=1e-5)
    if kind == 'detr':
        np.testing.assert_allclose(image.cross_weights(1), image.record.cross[1].weights(0).numpy()[image.query], rtol=1e-5)
        padded = image.cross_weights(1).reshape(20, *image.geometry.map_size)[:, image.geometry.valid_size[0] :]
        assert padded.size and (padded == 0).all()
    else:  # regions: the box before, ``view_scale`` times as large, around the same centre
        sides = [boxes[..., 2:] - boxes[..., :2] for boxes in (image.boxes[0], image.regions[1])]
        inside = (image.boxes[0] > 0).all(-1) & (image.boxes[0] < [200, 90, 200, 90]).all(-1)  # others are cut off
        assert inside.any()
        np.testing.assert_allclose(sides[1][inside], 1.5 * sides[0][inside], rtol=1e-3)


def test_shown_are_those_above_the_threshold_or_the_best():
    scores = torch.tensor([0.1, 0.8, 0.3, 0.9])
    assert shown_first(scores, 0.7, 1).tolist() == [3, 1] and shown_first(scores, 0.95, 1).tolist() == [3]
    assert shown_first(scores, 0.7, 3).tolist() == [3, 1, 2] and shown_first(scores, 0.7, 9).tolist() == [3, 1, 2, 0]
    assert len(shown_first(torch.ones(50), 0.7, 5)) == MOST_SHOWN and shown_first(torch.zeros(0), 0.7, 5).tolist() == []


def test_scores_are_softmax_without_no_object_or_sigmoid():
    logits = torch.tensor([[1.0, 0.0, 2.0]])
    expected = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0, 2.0]).sum()
    np.testing.assert_allclose(class_scores(logits, 2)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(class_scores(logits, 3)[0], 1 / (1 + np.exp([-1.0, 0.0, -2.0])), rtol=1e-6)


def test_choice_is_said_in_words(look):
    assert choice_of(look('local', score_thr=0.0, top=3)).startswith(f'Shown: the {MOST_SHOWN} best detections, all with scores of at')
    assert choice_of(look('detr', score_thr=1.0, top=3)) == 'Shown: the 3 best queries, none of which reaches the score 1'


@pytest.mark.parametrize(
    ('kind', 'names'), [('detr', ['encoder', 'cross', 'heads', 'queries', 'boxes']), ('local', ['encoder', 'regions', 'queries', 'boxes'])]
)
def test_figures_say_layer_head_class_and_score(kind, names, look):
    image = look(kind, top=2)
    figures = dict(attention_figures(image, [(10, 10), (150, 60)], range(9), heads=True))
    assert list(figures) == names
    titles = {name: ' | '.join(axis.get_title(loc='left') for axis in figure.axes) for name, figure in figures.items()}
    for layer in range(image.num_layers):
        main = titles['cross' if kind == 'detr' else 'regions']
        assert f'{image.caption(0, layer)}, layer {layer + 1}' in main and f'{image.caption(1, layer)}, layer {layer + 1}' in main
        assert f'layer {layer + 1} of {image.num_layers}' in titles['boxes']
    assert f'point 2, layer {len(image.record.encoder)}\nmost ' in titles['encoder']
    assert kind == 'local' or 'head 8\nmost ' in titles['heads']
    texts = [text.get_text() for text in figures['encoder'].texts]
    assert any(text.startswith('Mean of 8 heads\nShown: the 2 best queries') for text in texts)


def test_every_panel_shows_the_weights_of_its_own_query_and_layer(look):
    image = look('detr', top=3)
    figures = dict(attention_figures(image, [(10, 10), (150, 60)], [0, 2], heads=True))
    cells = [image.geometry.cell_at(10, 10), image.geometry.cell_at(150, 60)]
    heads = image.cross_weights(2, per_head=True)
    expected = dict(
        cross=[[image.cross_weights(layer)[number] for layer in (0, 2)] for number in range(3)],
        heads=[[head[number] for head in heads] for number in range(3)],
        encoder=[[None, *image.encoder_weights(layer, cells)] for layer in (0, 2)],
    )
    for name, rows in expected.items():
        weights = [each for row in rows for each in row]
        for axis, each in zip(figures[name].axes, weights, strict=False):
            (shown,) = axis.images
            heat = None if each is None else image.geometry.raster(each, (90, 200)) / brightest(each, np.prod(image.geometry.valid_size))
            np.testing.assert_array_equal(shown.get_array(), image.pixels if heat is None else overlay(image.pixels, heat))


@pytest.mark.parametrize(('kind', 'top', 'layers'), [('detr', 1, None), ('detr', 4, range(3)), ('local', 7, None), ('local', 1, range(3))])
def test_no_text_of_a_figure_is_cut_off(kind, top, layers, look):
    image = look(kind, top=top)
    image.label_names = ['traffic light'] * top
    for name, figure in attention_figures(image, image.centres(2), layers):
        figure.draw_without_rendering()  # places everything
        texts = [*figure.texts, *(axis._left_title for axis in figure.axes)]
        texts += [text for axis in figure.axes if axis.axison for text in axis.findobj(Text)]
        texts = [text for text in texts if text.get_text() and text.get_visible()]
        assert texts
        for box, text in ((text.get_window_extent(), text.get_text()) for text in texts):
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, (name, text, box, figure.bbox)


def test_points_outside_and_unknown_layers_are_refused_before_anything_is_written(look, tmp_path):
    image = look('local')
    with pytest.raises(ValueError, match='the point 250,5 lies outside the image of 200 x 90 pixels'):
        write_attention(image, tmp_path / 'out', 'm', points=[(5, 5), (250, 5)])
    with pytest.raises(ValueError, match='expected a layer from 1 to 3, got 4; the encoder has 1, the decoder 3'):
        write_attention(image, tmp_path / 'out', 'm', layer=3)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('shape', [(1, 1, 3), (5, 1000, 3)], ids=str)
def test_odd_images_are_drawn(shape, look, tmp_path):
    cv2.imwrite(str(tmp_path / 'odd.png'), np.full(shape, 90, np.uint8))
    image = look('detr', path=tmp_path / 'odd.png')
    files = write_attention(image, tmp_path / 'out', 'm')
    assert [path.name for path in files] == ['encoder.png', 'cross.png', 'queries.png', 'boxes.png', 'attention.html']
    assert all(path.stat().st_size > 1000 for path in files)


def test_unreadable_image_is_none_with_its_problem(predictors, tmp_path):
    frame = Frame('x.png', tmp_path / 'x.png', problem='is no image')
    assert look_at(predictors('detr'), frame) is None and frame.problem == 'is no image'


def test_outputs_that_are_not_finite_are_refused(predictors, photo):
    (frame,) = read_frames(photo)
    predictor = predictors('detr')
    weight = predictor.model.bbox_head.fc_cls.bias.data
    kept = weight.clone()
    try:
        weight[0] = float('nan')
        with pytest.raises(ValueError, match=r'gives scores or boxes that are not finite for .*photo .*\.png; was its training stable\?'):
            look_at(predictor, frame)
    finally:
        weight.copy_(kept)


def test_models_without_attention_are_refused(look):
    with pytest.raises(ValueError, match=r"plugin's DETR with a TransformerNeck and of its LocalDETR, got .*FasterRCNN; use a config"):
        look('faster_rcnn')


def test_brightness_grows_with_attention_and_the_image_shows_where_there_is_none():
    pixels = np.full((1, 5, 3), 200, np.uint8)
    shown = overlay(pixels, np.array([[0, 0.25, 0.5, 0.75, 1]]))
    luminance = shown.astype(float) @ [0.299, 0.587, 0.114]
    assert (shown[0, 0] == 100).all() and (np.diff(luminance[0, 1:]) > 15).all() and luminance[0, -1] > 180
    assert brightest(np.array([0.5, 0.5]), 2) == LEAST_PEAK / 2 and brightest(np.array([0.9, 0.0001]), 100) == 0.9


def test_planted_attention_lights_up_in_its_place_of_the_drawing():
    heat = np.zeros((90, 200))
    heat[60:80, 150:180] = 1
    figure = draw_panels(np.zeros((90, 200, 3), np.uint8), [[Panel('', heat=heat)]], 'title')
    drawn = rgb_of(figure).astype(int)
    place = figure.axes[0].get_window_extent()  # from the lower left corner
    height, width = len(drawn), drawn.shape[1]
    panel = drawn[round(height - place.y1) : round(height - place.y0), round(place.x0) : round(place.x1)]
    rows, columns = np.where(panel.sum(2) > 300)
    edges = [rows.min() / len(panel), rows.max() / len(panel), columns.min() / panel.shape[1], columns.max() / panel.shape[1]]
    assert width > 400
    np.testing.assert_allclose(edges, [60 / 90, 80 / 90, 150 / 200, 180 / 200], atol=0.02)
