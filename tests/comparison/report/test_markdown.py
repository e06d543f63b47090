"""The same content as Markdown."""

import re

import pytest

from mmdet_detr_plugin.comparison.report.markdown import escaped, fenced, paragraph

from .conftest import written
from .fake_results import FIRST, HOSTILE_CLASS, SECOND, bare_results, fake_results
from .pages import parsed
from .test_content import CHAPTERS


@pytest.fixture(scope='module', params=['one', 'many', 'short', 'bare'])
def text(request, folders, tmp_path_factory) -> str:
    if request.param == 'bare':
        return (written(bare_results(), tmp_path_factory.mktemp('bare')) / 'report.md').read_text()
    return (folders[request.param] / 'report.md').read_text()


def tables(text: str) -> list[list[list[str]]]:
    """Cells of each table, split at the bars that are not escaped; code blocks left out."""
    text = re.sub(r'^(`{3,}).*?^\1$', '', text, flags=re.S | re.M)
    blocks = re.findall(r'(?:^\|.*\n)+', text, re.M)
    return [[[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in block.splitlines()] for block in blocks]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(text):
    found = tables(text)
    assert len(found) >= 7
    for rows in found:
        assert rows[1] == ['---'] * len(rows[0])
        assert {len(row) for row in rows} == {len(rows[0])} and len(rows) > 2


def test_markdown_parser_sees_the_same_tables_and_no_html(text):
    markdown_it = pytest.importorskip('markdown_it', reason='needs markdown-it-py to parse what was written')
    tokens = markdown_it.MarkdownIt('commonmark').enable(['table', 'strikethrough']).parse(text)
    inline = [child for token in tokens for child in token.children or []]
    assert not [token for token in [*tokens, *inline] if token.type.startswith('html')]
    assert not [token for token in inline if token.type in ('code_inline', 's_open')]
    assert sum(token.type == 'table_open' for token in tokens) == len(tables(text))
    plain = [''.join(child.content for child in token.children) for token in tokens if token.type == 'inline']
    assert FIRST in plain and SECOND in plain


@pytest.mark.parametrize(
    'hostile', [SECOND, HOSTILE_CLASS, '# a', '- a', '1. a', '---', '_a_ **b** [c](d) ~~e~~ $f$', '&lt; \\| "x"', '| a |']
)
def test_hostile_text_comes_back_from_a_markdown_parser(hostile):
    markdown_it = pytest.importorskip('markdown_it', reason='needs markdown-it-py to parse what was written')
    parser = markdown_it.MarkdownIt('commonmark').enable(['table', 'strikethrough'])
    assert ' '.join(parsed(parser.render(paragraph(hostile))).text().split()) == hostile
    page = parsed(parser.render(f'| head |\n| --- |\n| {escaped(hostile)} |'))
    assert [cell.text() for cell in page.find('td')] == [hostile]


def test_same_chapters_numbers_and_alerts_as_the_page(folders):
    text = (folders['one'] / 'report.md').read_text()
    page = parsed((folders['one'] / 'report.html').read_text())
    assert re.findall(r'^## (.*)$', text, re.M) == CHAPTERS
    assert text.index('> **') < text.index('## Summary')
    assert text.count('\n> **') == 2
    captions = [caption.text() for caption in page.find('caption')]
    assert [re.sub(r'\\', '', caption) for caption in re.findall(r'^\*([^*].*)\*$', text, re.M)] == captions
    cells = {cell for rows in tables(text) for row in rows for cell in row}
    assert {'0.350 ± 0.014', '+0.080', '−0.012', '0.546', '**unfair**'} <= cells


def test_long_tables_are_thinned_and_keep_their_last_row(tmp_path):
    text = (written(fake_results(epochs=100), tmp_path) / 'report.md').read_text()
    curve = next(rows for rows in tables(text) if rows[0][0] == 'Epoch' and rows[0][1] == 'Images seen')
    assert [row[0] for row in curve[2:5]] == ['1', '8', '15'] and curve[-1][0] == '100' and len(curve) < 20
    recall = next(rows for rows in tables(text) if rows[0][0] == 'Recall')
    assert [row[0] for row in recall[2:]] == [f'{step / 10:.2f}' for step in range(11)]


def test_pictures_are_linked_by_relative_path(folders):
    text = (folders['one'] / 'report.md').read_text()
    links = re.findall(r'!\[[^\]]*\]\(([^)]+)\)', text)
    assert links == ['examples/only-1.png', 'examples/only-2.png', 'examples/both-1.png', 'examples/both-2.png']
    assert all((folders['one'] / link).is_file() for link in links)


def test_code_fences_are_longer_than_any_inside():
    assert fenced('a ``` b\n') == '````text\na ``` b\n````' and fenced('') == '```text\n\n```'
