"""The page holds the weights that it shows, and shows those of what is pointed at; in a real browser where there is one."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmdet_detr_plugin.comparison.report.palette import DARK_PAGE, LIGHT_PAGE
from mmdet_detr_plugin.visualization.attention_page import cross_table, encoder_table, render_page
from mmdet_detr_plugin.visualization.panels import brightest

from ..comparison.report.browser import NAMES, find_browser, opened

BROWSER = pytest.mark.skipif(find_browser() is None, reason=f'needs one of {", ".join(NAMES)} on the PATH')


def values(table: dict) -> np.ndarray:
    """(L, R, rows, columns) in [0, 1]."""
    content = np.frombuffer(base64.b64decode(table['bytes']), np.uint8)
    return content.reshape(len(table['most']), -1, *table['size']) / 255


def test_tables_hold_the_weights_to_one_step_in_255(look):
    image = look('detr', top=3)
    rows, columns = image.geometry.valid_size
    for table, rows_of in ((cross_table(image), image.cross_weights), (encoder_table(image), None)):
        found = values(table)
        for layer in range(len(found)):
            if rows_of is None:
                cells = [row * image.geometry.map_size[1] + column for row in range(rows) for column in range(columns)]
                expected = image.encoder_weights(layer, cells)
            else:
                expected = rows_of(layer)
            expected = image.geometry.without_padding(expected)
            np.testing.assert_allclose(table['most'][layer], expected.max((1, 2)), atol=1e-5)
            for row, cells in zip(found[layer], expected, strict=True):
                np.testing.assert_allclose(row * brightest(cells, rows * columns), cells, atol=brightest(cells, rows * columns) / 500)
    assert cross_table(look('local')) is None


@pytest.mark.parametrize('step', [1, 2, 3])
def test_large_encoder_tables_become_points_on_a_grid(step, look):
    image = look('detr', top=1)
    full = encoder_table(image)
    rows, columns = full['size']
    sources = [-(-count // step) for count in (rows, columns)]
    table = encoder_table(image, sources[0] * sources[1] * rows * columns * len(full['most']))
    assert table['step'] <= step and len(values(table)[0]) == table['sources'][0] * table['sources'][1]
    whole = values(full).reshape(len(full['most']), rows, columns, rows, columns)
    starts, every = table['first'], table['step']
    np.testing.assert_array_equal(values(table), whole[:, starts[0] :: every, starts[1] :: every].reshape(values(table).shape))
    assert table['sources'] == [len(range(first, count, every)) for first, count in zip(starts, (rows, columns))]
    if step > 1:
        text = render_page(image, 't', 'm')
        assert 'Every cell can be chosen' in text
    assert (encoder_table(image, 0)['sources'], encoder_table(image, 0)['step']) == ([1, 1], max(rows, columns))


def test_page_is_one_file_that_escapes_names(look):
    text = render_page(look('detr', top=2), 'a <script>alert(1)</script> & b', '<i>model</i>')
    assert '<script>alert' not in text and '<i>model' not in text and text.count('<script') == 2
    assert not re.search(r'(src|href)="(?!data:|#)', text) and "default-src 'none'" in text
    hostile = look('detr', top=1)
    hostile = replace(hostile, label_names=['</script><img src=x>'])
    assert '<img src=x>' not in render_page(hostile, 't', 'm')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with opened(tmp_path_factory.mktemp('browser') / 'profile') as page:
        yield page


def show(browser, image, folder: Path):
    """Open the page of an image whose detections have boxes by which they can be told apart."""
    boxes = np.array([[10, 10, 60, 80], [100, 20, 190, 70], [120, 30, 150, 60]], float)[: len(image.query)]
    image = replace(image, boxes=np.stack([boxes] * image.num_layers))
    (folder / 'page.html').write_text(render_page(image, 'photo', 'model'))
    browser.requests.clear()
    browser.complaints.clear()
    browser.resize(1280, 900)
    browser.colour_scheme('light')
    browser.open(folder / 'page.html')
    return browser, image


def point(page, stage: str, x: float, y: float, click: bool = False) -> None:
    """Move the mouse to a place of the image, in pixels of the original."""
    place = page.evaluate(
        f'(() => {{ const e = document.querySelector("#{stage} img"); e.scrollIntoView({{block: "center", behavior: "instant"}});'
        f'const r = e.getBoundingClientRect(); return {{x: r.x + r.width * {x} / 200, y: r.y + r.height * {y} / 90}}; }})()'
    )
    page.send('Input.dispatchMouseEvent', type='mouseMoved', **place)
    for kind in ('mousePressed', 'mouseReleased') if click else ():
        page.send('Input.dispatchMouseEvent', type=kind, **place, button='left', clickCount=1)


def pressed(page) -> list[int]:
    chosen = 'Array.from(document.querySelectorAll("[data-detection][aria-pressed=true]"), (button) => Number(button.dataset.detection))'
    return page.evaluate(chosen)


def opacities(page, stage: str) -> np.ndarray:
    """Opacity of the heat map, over the whole image."""
    canvas = f'document.querySelector("#{stage} canvas")'
    data = f'Array.from({canvas}.getContext("2d").getImageData(0, 0, {canvas}.width, {canvas}.height).data).filter((_, i) => i % 4 === 3)'
    width = page.evaluate(f'{canvas}.width')
    return np.array(page.evaluate(data)).reshape(-1, width)


def planted(image, row: int, column: int, source: int = 0):
    """The second shown query attends to one cell alone, in the second layer; one of the encoder's cells to that too, in its first layer."""
    cell = row * image.geometry.map_size[1] + column
    for attention, attending in ((image.record.cross[1], image.query[1]), (image.record.encoder[0], source)):
        attention.k.zero_()
        attention.k[:, :, cell] = 1
        attention.q[:, :, attending] = 1000
    return image


@BROWSER
def test_pointing_at_a_detection_shows_its_attention_in_the_chosen_layer(look, browser, tmp_path):
    page, image = show(browser, planted(look('detr', top=3), 1, 3), tmp_path)
    assert pressed(page) == [0] and page.evaluate('document.querySelectorAll("#detections-stage rect").length') == 3
    page.click('input[name=decoder-layer][value="1"]')
    point(page, 'detections-stage', 180, 65)
    assert pressed(page) == [1]
    shown = opacities(page, 'detections-stage')
    assert shown.shape == (90, 200)
    y, x = np.argwhere(shown == shown.max()).mean(0)
    x0, y0, x1, y1 = image.geometry.box_of_cell(image.geometry.map_size[1] + 3)
    assert x0 <= x <= x1 and y0 <= y <= y1 and shown.max() > 190 and np.median(shown) < 5
    says = page.evaluate('document.getElementById("detections-says").textContent')
    assert (
        f'2 {image.label_names[1]}, score {image.scores[1, 1]:.2f} after layer 2 of 3. The cell with the most attention has 100.0 %' in says
    )
    point(page, 'detections-stage', 135, 45)  # inside of both: the smaller one
    assert pressed(page) == [2]
    point(page, 'detections-stage', 80, 5)  # beside all: nothing changes
    assert pressed(page) == [2]


@BROWSER
def test_list_shows_by_click_and_by_keyboard_alone(look, browser, tmp_path):
    page, _ = show(browser, look('detr', top=3), tmp_path)
    page.click('[data-detection="2"]')
    assert pressed(page) == [2]
    page.evaluate('document.querySelector("input[name=decoder-layer]:checked").focus()')
    page.press('ArrowLeft', 37)
    assert page.evaluate('document.querySelector("input[name=decoder-layer]:checked").value') == '1'
    page.press('Tab', 9)
    assert pressed(page) == [0] and page.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
    page.press('Tab', 9)
    assert pressed(page) == [1]
    page.click('[data-detection="-1"]')
    assert pressed(page) == [-1] and opacities(page, 'detections-stage').max() == 0
    assert page.evaluate('getComputedStyle(document.querySelector("#detections-stage img")).filter') == 'none'


@BROWSER
def test_tap_shows_a_detection(look, browser, tmp_path):
    page, _ = show(browser, look('detr', top=3), tmp_path)
    point(page, 'detections-stage', 80, 5)
    place = page.evaluate(
        '(() => { const r = document.querySelector("#detections-stage img").getBoundingClientRect();'
        'return {x: r.x + r.width * 0.9, y: r.y + r.height * 0.7}; })()'
    )
    page.send('Input.dispatchTouchEvent', type='touchStart', touchPoints=[place])
    page.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
    assert pressed(page) == [1]


@BROWSER
def test_clicked_point_shows_the_encoders_attention_from_there(look, browser, tmp_path):
    image = look('detr', top=3)
    columns = image.geometry.map_size[1]
    page, image = show(browser, planted(image, 2, 4, source=3 * columns + 1), tmp_path)
    page.click('input[name=encoder-layer][value="0"]')
    x0, y0, x1, y1 = image.geometry.box_of_cell(3 * columns + 1)
    point(page, 'encoder-stage', x1 - 1, y0 + 1, click=True)
    shown = opacities(page, 'encoder-stage')
    y, x = np.argwhere(shown == shown.max()).mean(0)
    x0, y0, x1, y1 = image.geometry.box_of_cell(2 * image.geometry.map_size[1] + 4)
    assert x0 <= x <= x1 and y0 <= y <= y1 and np.median(shown) < 5
    says = 'document.getElementById("encoder-says").textContent'
    assert 'in layer 1 of' in page.evaluate(says) and '100.0 %' in page.evaluate(says)
    page.evaluate('document.getElementById("point-x").focus()')
    page.press('ArrowRight', 39)
    assert page.evaluate('document.getElementById("point-x").value') == '2' and '100.0 %' not in page.evaluate(says)
    point(page, 'encoder-stage', 199, 89, click=True)
    assert [page.evaluate(f'document.getElementById("point-{axis}").value') for axis in 'yx'] == [
        str(count - 1) for count in image.geometry.valid_size
    ]


@BROWSER
def test_table_of_queries_follows_its_layer(look, browser, tmp_path):
    page, image = show(browser, look('detr', top=3), tmp_path)
    for layer in (2, 0):
        page.click(f'input[name=queries-layer][value="{layer}"]')
        cells = page.evaluate('Array.from(document.querySelectorAll("#queries td"), (cell) => Number(cell.textContent))')
        np.testing.assert_allclose(np.reshape(cells, (3, 4)), 100 * image.query_weights(layer), atol=0.06)


@BROWSER
def test_local_detr_shows_where_each_layer_looks(look, browser, tmp_path):
    page, image = show(browser, look('local', top=2), tmp_path)
    page.click('input[name=decoder-layer][value="1"]')
    region = page.evaluate('(() => { const r = document.querySelector("rect.region"); return [r.x, r.y].map((x) => x.baseVal.value); })()')
    np.testing.assert_allclose(region, image.regions[1, 0, :2], atol=0.06)
    assert page.evaluate('document.querySelectorAll("path.shade").length') == 1 and page.complaints == []
    assert 'no cross-attention' in page.evaluate('document.body.textContent')


@BROWSER
@pytest.mark.parametrize('kind', ['detr', 'local'])
def test_page_is_quiet_narrow_named_and_follows_the_colour_scheme(kind, look, browser, tmp_path):
    page, _ = show(browser, look(kind, top=3), tmp_path)
    files = [url for url in page.requests if not url.startswith('data:')]
    assert page.complaints == [] and files == [(tmp_path / 'page.html').resolve().as_uri()]
    for width in (360, 760, 1280):
        page.resize(width, 800)
        assert page.evaluate('document.documentElement.scrollWidth') <= width
    for scheme, colour in (('light', LIGHT_PAGE), ('dark', DARK_PAGE)):
        page.colour_scheme(scheme)
        rgb = tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))
        assert page.evaluate('getComputedStyle(document.body).backgroundColor') == f'rgb{rgb}'
    page.send('Accessibility.enable')
    nodes = page.send('Accessibility.getFullAXTree')['nodes']
    roles = {'button', 'radio', 'slider', 'image', 'link', 'group', 'region', 'table'}
    names = [(node['role']['value'], node.get('name', {}).get('value')) for node in nodes if 'role' in node]
    assert [role for role, name in names if role in roles and not name] == []
    assert sum(role == 'radio' for role, _ in names) >= 7 and page.complaints == []
