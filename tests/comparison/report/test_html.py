"""The page as a page: whole, safe, accessible."""

import base64
import re
from itertools import pairwise

import pytest

from mmdet_detr_plugin.comparison.report import write_report
from mmdet_detr_plugin.comparison.report.blocks import Report, Section, Text
from mmdet_detr_plugin.comparison.report.html import TEMPLATES, breakable, data_uri, render_html
from mmdet_detr_plugin.comparison.report.palette import COLOURS, DARK_PAGE, LIGHT_PAGE, dashes, marker

from .conftest import written
from .fake_results import FIRST, HOSTILE_CLASS, SECOND, bare_results, fake_results
from .pages import parsed


@pytest.fixture(scope='module', params=['one', 'many', 'short', 'bare'])
def html(request, folders, tmp_path_factory) -> str:
    if request.param == 'bare':
        return (written(bare_results(), tmp_path_factory.mktemp('bare')) / 'report.html').read_text()
    return (folders[request.param] / 'report.html').read_text()


def test_page_is_balanced_and_every_reference_has_its_target(html):
    page = parsed(html)
    identifiers = [element.attributes['id'] for element in page.find() if 'id' in element.attributes]
    assert len(identifiers) == len(set(identifiers))
    for element in page.find():
        references = element.attributes.get('aria-labelledby', '').split()
        references += re.findall(r'url\(#([^)]+)\)', ' '.join(value or '' for value in element.attributes.values()))
        references += [element.attributes['href'][1:]] if element.attributes.get('href', '').startswith('#') else []
        assert set(references) <= set(identifiers), (element.tag, references)


def test_page_asks_for_nothing_outside(html):
    assert '://' not in html and '@import' not in html and not re.search(r'url\((?!#)', html)
    for element in parsed(html).find():
        for name in ('src', 'href', 'srcset', 'data', 'action', 'poster', 'background'):
            assert element.attributes.get(name, '#').startswith(('#', 'data:')), (element.tag, element.attributes)
    assert "default-src 'none'" in html


def test_names_and_errors_stay_text(html):
    page = parsed(html)
    assert [script.attributes for script in page.find('script')] == [{}]
    assert not page.find('b', 'nan') and 'window.injected' not in page.find('script')[0].text()
    assert SECOND in page.text() and FIRST in page.text()
    assert not any(name.startswith('on') for element in page.find() for name in element.attributes)


def test_hostile_class_and_picture_texts_are_shown_as_they_are(folders):
    page = parsed((folders['many'] / 'report.html').read_text())
    assert HOSTILE_CLASS in [cell.text() for cell in page.find('th')]
    assert page.find('img')[0].attributes['alt'] == 'Ground truth and 3 models on 1.jpg, "quoted"'
    assert '1_<b>.jpg' in [caption.text() for caption in page.find('figcaption')]


def test_accessibility_basics_hold(html):
    page = parsed(html)
    assert page.find('html')[0].attributes['lang'] == 'en' and page.find('title')[0].text()
    assert [len(page.find(tag)) for tag in ('header', 'nav', 'main', 'footer', 'h1')] == [1] * 5
    links = page.find('a')
    assert links[0].attributes == {'class': 'skip', 'href': '#main'} and page.find('main')[0].attributes['tabindex'] == '-1'
    levels = [int(heading.tag[1]) for heading in page.find('h1', 'h2', 'h3', 'h4')]
    assert levels[0] == 1 and all(later <= earlier + 1 for earlier, later in pairwise(levels))
    for table in page.find('table'):
        assert table.find('caption')[0].text()
        assert {head.attributes.get('scope') for head in table.find('thead')[0].find('th')} == {'col'}
        for row in table.find('tbody')[0].find('tr'):
            assert row.children[0].tag == 'th' and row.children[0].attributes['scope'] == 'row'
            assert len(row.children) == len(table.find('thead')[0].find('th'))
        sortable = len(table.find('tbody')[0].find('tr')) > 1
        assert len(table.find('button')) == (len(table.find('thead')[0].find('th')) if sortable else 0)
        assert table.parent.attributes['role'] == 'region' and table.parent.attributes['tabindex'] == '0'
    assert all(image.attributes['alt'] for image in page.find('img'))


def test_charts_have_a_name_a_description_with_numbers_and_units(folders):
    page = parsed((folders['one'] / 'report.html').read_text())
    charts = [svg for svg in page.find('svg') if svg.attributes['class'] == 'chart']
    assert len(charts) == 1 + 3 + 1 + 1 + 1 + 2 + 2
    for chart in charts:
        assert chart.attributes['role'] == 'img'
        title, description = chart.find('title')[0], chart.find('desc')[0]
        assert chart.attributes['aria-labelledby'] == f'{title.attributes["id"]} {description.attributes["id"]}'
        assert title.text() and re.search(r'\d', description.text()) and FIRST in description.text()
    texts = [text.text() for chart in charts for text in chart.find('text')]
    for label in ('epochs', 'images seen in training', 'training time (min)', 'AP (IoU 0.50 to 0.95)', 'recall', 'decoder layer'):
        assert label in texts


def test_charts_take_the_pages_colours(folders):
    html = (folders['one'] / 'report.html').read_text()
    charts = [svg for svg in parsed(html).find('svg') if svg.attributes['class'] == 'chart']
    styles = '; '.join(element.attributes.get('style', '') for chart in charts for element in chart.find())
    paints = set(re.findall(r'(?:fill|stroke): ([^;]+)', styles))
    assert paints <= {'none', 'currentColor', 'var(--page)', 'var(--series-0)', 'var(--series-1)', 'var(--series-2)'}
    assert {'currentColor', 'var(--series-0)', 'var(--series-1)', 'var(--series-2)'} <= paints
    assert 'font-family' not in styles
    assert not any(chart.find('metadata', 'style') for chart in charts)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_every_series_has_contrast_on_both_pages():
    assert contrast('#000000', '#ffffff') == pytest.approx(21)
    for light, dark in COLOURS:
        assert contrast(light, LIGHT_PAGE) >= 3 and contrast(dark, DARK_PAGE) >= 3


def test_every_text_colour_has_contrast_on_both_pages():
    style = (TEMPLATES / 'style.css').read_text()
    blocks = re.findall(r':root \{(.*?)\}', style, re.S)
    for block, page in zip(blocks, (LIGHT_PAGE, DARK_PAGE), strict=True):
        colours = dict(re.findall(r'--([\w-]+): (#\w+);', block))
        for name in ('text', 'muted', 'link', 'bad', 'warning'):
            assert contrast(colours[name], page) >= 4.5 and contrast(colours[name], colours['soft']) >= 4.5
        assert contrast(colours['bad'], colours['bad-soft']) >= 4.5


def test_models_differ_without_colours_too():
    assert len({(marker(series), dashes(series)) for series in range(28)}) == 28


def test_long_names_may_break_and_nothing_is_lost():
    assert str(breakable('detr_r18<b>')) == 'detr_<wbr>r18&lt;b&gt;'
    assert str(breakable('optimizer.lr=0.25')) == 'optimizer.<wbr>lr=<wbr>0.25'
    assert str(breakable('0.25 ± 0.02, 95 %')) == '0.25\xa0± 0.02, 95\xa0%'
    assert str(breakable('x' * 45)) == '<wbr>'.join(('x' * 20, 'x' * 20, 'x' * 5))
    assert parsed(str(breakable(SECOND))).text() == SECOND


def test_pictures_are_inside_the_page(folders, tmp_path):
    html = (folders['one'] / 'report.html').read_text()
    sources = [image.attributes['src'] for image in parsed(html).find('img')]
    head, content = sources[0].split(',')
    assert head == 'data:image/png;base64' and base64.b64decode(content) == (folders['one'] / 'examples' / 'only-1.png').read_bytes()
    assert len(sources) == 4
    missing = fake_results()
    missing['examples'] = [{'group': 'g', 'rule': 'r', 'pictures': [{'file': 'examples/gone.png', 'alt': 'a', 'image': 'i'}]}]
    write_report(missing, tmp_path)
    assert 'The picture examples/gone.png is missing.' in parsed((tmp_path / 'report.html').read_text()).text()


def test_pictures_from_elsewhere_are_refused(tmp_path):
    (tmp_path / 'secret.png').write_bytes(b'')
    for file in ('../secret.png', str(tmp_path / 'secret.png')):
        with pytest.raises(ValueError, match=r'expected pictures inside .*, got .*; write them into the folder of the report'):
            data_uri(tmp_path / 'report', file)
    with pytest.raises(ValueError, match=r"expected pictures that end in \.png.*, got 'a\.svg'; convert it"):
        data_uri(tmp_path, 'a.svg')


def test_empty_report_is_a_page(tmp_path):
    page = parsed(render_html(Report('nothing', (), (), (Section('a', 'A', 'Read it.', (Text('x'),)),)), tmp_path))
    assert page.find('h1')[0].text() == 'nothing' and not page.find('table')
