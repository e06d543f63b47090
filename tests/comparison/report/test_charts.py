"""Charts at the edges of what they are given."""

import re
from xml.etree import ElementTree

import pytest

from mmdet_detr_plugin.comparison.report.charts import LABEL_LENGTH, Interval, Line, bar_chart, interval_chart, line_chart
from mmdet_detr_plugin.comparison.report.palette import COLOURS


def texts(panel) -> list[str]:
    return [element.text for element in ElementTree.fromstring(panel.svg).iter('text')]


def markers(panel) -> int:
    """Those of the first model."""
    return sum('var(--series-0)' in element.get('style', '') for element in ElementTree.fromstring(panel.svg).iter('use'))


@pytest.mark.parametrize('name', ['cost $x$ and $y$', r'\frac{1}', '<b>&amp;</b>', '_^{}'])
def test_names_are_drawn_as_they_are(name):
    panel = interval_chart('key', name, name, [Interval((name, f'minus {name}'), 0.1, 0.0, 0.2, False)], name)
    assert texts(panel).count(name) == 2 and f'minus {name}' in texts(panel)
    root = ElementTree.fromstring(panel.svg)
    assert [root.find(tag).text for tag in ('title', 'desc')] == [name, name]


def test_names_that_do_not_fit_are_cut_with_a_sign():
    panel = interval_chart('key', 't', 'd', [Interval(('m' * 200,), 0.0, 0.0, 0.0, False)], 'x')
    assert 'm' * (LABEL_LENGTH - 1) + '…' in texts(panel)


def test_zero_stays_in_the_middle_of_a_forest_plot():
    panel = interval_chart('key', 't', 'd', [Interval(('a',), 0.3, 0.2, 0.4, True)], 'x')
    ticks = [float(text.replace('−', '-')) for text in texts(panel) if re.fullmatch(r'−?\d\.\d+', text)]
    assert sum(ticks) == pytest.approx(0) and min(ticks) < -0.3


def test_curves_without_points_and_with_one_are_drawn():
    empty = line_chart('key', 't', 'd', [Line(0, [], [])], 'x', 'y', whole_x=True)
    one = line_chart('key', 't', 'd', [Line(0, [3], [0.5])], 'x', 'y', whole_x=True)
    assert 'x' in texts(empty) and '3' in texts(one) and not any('.' in text for text in texts(one)[:1])


def test_long_curves_have_few_markers_and_short_ones_all():
    few, many = (line_chart('key', 't', 'd', [Line(0, range(n), [0.5] * n)], 'x', 'y') for n in (4, 400))
    assert markers(few) == 4 and markers(many) == 9


def test_more_models_than_colours_still_have_bars_of_their_own():
    count = len(COLOURS) + 2
    panel = bar_chart('key', 't', 'd', ('a', 'b'), {series: [0.1, 0.2] for series in range(count)}, 'x')
    assert panel.svg.count('var(--series-0)') > panel.svg.count('var(--series-5)') > 0
    assert {'a', 'b', 'x'} <= set(texts(panel))


def test_ids_differ_between_charts_and_are_used():
    found = []
    for key in ('one', 'two'):
        svg = line_chart(key, 't', 'd', [Line(0, [1, 2], [0, 1])], 'x', 'y').svg
        identifiers = set(re.findall(r' id="([^"]+)"', svg))
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) | {f'{key}-title', f'{key}-desc'}
        assert identifiers == used
        found.append(identifiers)
    assert not found[0] & found[1]
