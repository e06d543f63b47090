"""The page in a real browser. Debian's ``chromium`` package is enough; without a browser these tests are skipped."""

import pytest

from mmdet_detr_plugin.comparison.report.blocks import Report, Section, Table
from mmdet_detr_plugin.comparison.report.html import render_html
from mmdet_detr_plugin.comparison.report.palette import DARK_PAGE, LIGHT_PAGE

from .browser import NAMES, find_browser, opened
from .fake_results import FIRST, SECOND, THIRD

pytestmark = pytest.mark.skipif(find_browser() is None, reason=f'needs one of {", ".join(NAMES)} on the PATH')
MODELS = '#models table'
AP = 7  # its column there
KINDS = {
    'Spread': ['0.25 ± 0.02', '-', '0.3 ± 0.9', '0.031'],
    'Sign': ['+0.2', '−0.3', '-', '−0.04'],
    'Unit': ['9 ms', '100 ms', '20 ms', '-'],
    'Text': ['class 10', 'Class 9', '-', 'class 1'],
}


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    with opened(tmp_path_factory.mktemp('browser') / 'profile') as page:
        yield page


@pytest.fixture
def report(page, folders):
    page.requests.clear()
    page.complaints.clear()
    page.resize(1280, 900)
    page.colour_scheme('light')
    page.open(folders['one'] / 'report.html')
    return page


def column(page, table: str, number: int) -> list[str]:
    """Texts of a column's cells from top to bottom; the first column has number 1."""
    cells = f'document.querySelectorAll({table!r} + " tbody tr > :nth-child({number})")'
    return page.evaluate(f'Array.from({cells}, (cell) => cell.textContent.trim().replace(/\\s+/g, " "))')


def order(page) -> tuple[list[str], list[str | None]]:
    sorts = page.evaluate(f'Array.from(document.querySelectorAll("{MODELS} thead th"), (head) => head.getAttribute("aria-sort"))')
    return column(page, MODELS, 1), sorts


def test_page_is_quiet_asks_for_nothing_and_runs_no_foreign_script(report, folders):
    assert report.complaints == []
    files = [url for url in report.requests if not url.startswith('data:')]
    assert files == [(folders['one'] / 'report.html').resolve().as_uri()]
    assert report.evaluate('typeof window.injected') == 'undefined'


def test_browser_check_sees_errors_and_requests(report, tmp_path):
    (tmp_path / 'bad.html').write_text('<img src="missing.png"><script>console.error("x")</script>')
    report.open(tmp_path / 'bad.html')
    assert any('missing.png' in url for url in report.requests) and len(report.complaints) >= 2


def test_every_image_is_shown(report):
    widths = report.evaluate('Array.from(document.images, (image) => image.naturalWidth)')
    assert widths == [720] * 4


def test_click_on_a_header_sorts_and_says_so(report):
    assert order(report) == ([FIRST, SECOND, THIRD], [None] * 15)
    button = f'{MODELS} thead th:nth-child({AP}) button'
    report.click(button)
    ascending = [None] * (AP - 1) + ['ascending'] + [None] * (15 - AP)
    assert order(report) == ([SECOND, THIRD, FIRST], ascending)
    report.click(button)
    assert order(report) == ([FIRST, THIRD, SECOND], [sort and 'descending' for sort in ascending])
    report.click(f'{MODELS} thead th:nth-child(1) button')
    assert order(report) == ([SECOND, THIRD, FIRST], ['ascending'] + [None] * 14)


def test_keys_reach_the_results_and_sort(report):
    report.press('Tab', 9)
    assert report.evaluate('document.activeElement.className') == 'skip'
    report.press('Enter', 13, '\r')
    assert report.evaluate('document.activeElement.id') == 'main'
    report.evaluate(f'document.querySelector("{MODELS} thead th:nth-child({AP - 1}) button").focus()')
    report.press('Tab', 9)
    assert report.evaluate('document.activeElement.textContent') == 'AP'
    assert report.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
    report.press('Enter', 13, '\r')
    assert order(report)[0] == [SECOND, THIRD, FIRST]
    report.press(' ', 32, ' ')
    assert order(report)[0] == [FIRST, THIRD, SECOND]


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('Spread', ['0.031', '0.25 ± 0.02', '0.3 ± 0.9', '-']),
        ('Sign', ['−0.3', '−0.04', '+0.2', '-']),
        ('Unit', ['9 ms', '20 ms', '100 ms', '-']),
        ('Text', ['class 1', 'Class 9', 'class 10', '-']),
    ],
)
def test_sorting_understands_spreads_signs_units_and_gaps(page, tmp_path, name, expected):
    table = Table('kinds', tuple(KINDS), tuple(zip(*KINDS.values())))
    (tmp_path / 'kinds.html').write_text(render_html(Report('kinds', (), (), (Section('a', 'A', 'R', (table,)),)), tmp_path))
    page.open(tmp_path / 'kinds.html')
    number = list(KINDS).index(name) + 1
    button = f'thead th:nth-child({number}) button'
    page.click(button)
    assert column(page, 'table', number) == expected
    page.click(button)
    assert column(page, 'table', number) == [*reversed(expected[:-1]), '-']


@pytest.mark.parametrize('variant', ['one', 'many', 'short'])
@pytest.mark.parametrize('width', [360, 760, 1280])
def test_page_is_never_wider_than_the_window(report, folders, variant, width):
    report.resize(width, 800)
    report.open(folders[variant] / 'report.html')
    report.evaluate('document.querySelectorAll("details").forEach((each) => { each.open = true; })')
    assert report.evaluate('document.documentElement.scrollWidth') <= width
    wide = 'Array.from(document.querySelectorAll(".scroll, pre"), (each) => each.scrollWidth > each.clientWidth)'
    assert width > 360 or any(report.evaluate(wide))  # tables scroll inside their own box


@pytest.mark.parametrize('variant', ['one', 'short'])
def test_no_label_of_a_chart_is_cut_off(report, folders, variant):
    report.open(folders[variant] / 'report.html')
    outside = report.evaluate("""Array.from(document.querySelectorAll('.chart')).flatMap((chart) => {
        const frame = chart.getBoundingClientRect();
        return Array.from(chart.querySelectorAll('text')).filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
        }).map((text) => text.textContent);
    })""")
    assert outside == [] and report.evaluate("document.querySelectorAll('.chart text').length") > 50


@pytest.mark.parametrize(('scheme', 'page_colour'), [('light', LIGHT_PAGE), ('dark', DARK_PAGE)])
def test_page_and_charts_follow_the_colour_scheme(report, scheme, page_colour):
    report.colour_scheme(scheme)
    rgb = tuple(int(page_colour[start : start + 2], 16) for start in (1, 3, 5))
    assert report.evaluate('getComputedStyle(document.body).backgroundColor') == f'rgb{rgb}'
    text, label = 'getComputedStyle(document.body).color', "getComputedStyle(document.querySelector('.chart text')).fill"
    assert report.evaluate(text) == report.evaluate(label)
    assert report.evaluate('matchMedia("(prefers-color-scheme: dark)").matches') == (scheme == 'dark')
