"""The report as Markdown: the same tables, pictures by relative path, charts as their tables."""

import re
from collections.abc import Callable
from urllib.parse import quote

from .blocks import BAD, Code, Figure, Pictures, Points, Report, Section, Table, Text


def render_markdown(report: Report) -> str:
    parts = [f'# {escaped(report.title)}', *_points(Points(report.facts))]
    if report.alerts:
        parts.append('\n>\n'.join(f'> **{escaped(alert)}**' for alert in report.alerts))
    for section in report.sections:
        parts += _section(section)
    return '\n\n'.join(parts) + '\n'


def escaped(text: str) -> str:
    """Text inside a line that is shown as it is, by Markdown that allows HTML too."""
    text = ' '.join(text.split())
    text = text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    text = re.sub(r'([\\`*\[\]|~$])', r'\\\1', text)
    return re.sub(r'(?<![^\W_])_|_(?![^\W_])', r'\\_', text)  # inside words it stands for itself


def paragraph(text: str) -> str:
    """As ``escaped``, at the start of a line, where more would begin a heading, a list or a rule."""
    text = re.sub(r'^([#+=-])', r'\\\1', escaped(text))
    return re.sub(r'^(\d+)([.)])(?=\s|$)', r'\1\\\2', text)


def fenced(text: str) -> str:
    """A code block, its fence longer than any in the text."""
    longest = max((len(run) for run in re.findall('`+', text)), default=0)
    fence = '`' * max(3, longest + 1)
    return f'{fence}text\n{text.rstrip()}\n{fence}'


def _section(section: Section) -> list[str]:
    blocks = [part for block in section.blocks for part in WRITERS[type(block)](block)]
    reading = [paragraph(section.reading)]
    return [f'## {escaped(section.title)}', *(blocks + reading if section.reading_last else reading + blocks)]


def _text(block: Text) -> list[str]:
    return [f'**{escaped(block.text)}**' if block.tone == BAD else paragraph(block.text)]


def _points(block: Points) -> list[str]:
    return ['\n'.join(f'- {paragraph(item)}' for item in block.items)]


def _table(block: Table) -> list[str]:
    rows = [[f'**{escaped(cell.text)}**' if cell.tone == BAD else escaped(cell.text) for cell in row] for row in block.cells()]
    shown = [row for number, row in enumerate(rows) if number % block.step == 0 or number == len(rows) - 1]
    lines = [[escaped(column) for column in block.columns], ['---'] * len(block.columns), *shown]
    return [f'*{escaped(block.caption)}*', '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)]


def _figure(block: Figure) -> list[str]:
    return _table(block.table) if block.table else []


def _pictures(block: Pictures) -> list[str]:
    parts = [f'### {escaped(block.heading)}', paragraph(block.rule)]
    for picture in block.pictures:
        parts += [f'{paragraph(picture.label)}:', f'![{escaped(picture.alt)}]({quote(picture.file)})']
    return parts


def _code(block: Code) -> list[str]:
    return [f'### {escaped(block.title)}', fenced(block.text)]


WRITERS: dict[type, Callable[..., list[str]]] = {
    Text: _text,
    Points: _points,
    Table: _table,
    Figure: _figure,
    Pictures: _pictures,
    Code: _code,
}
