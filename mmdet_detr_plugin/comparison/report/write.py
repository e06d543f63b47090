"""Both forms of the report, from the same sections."""

import re
from pathlib import Path

from ...files import write_atomically
from .html import render_html
from .markdown import render_markdown
from .sections import build_report

FORMAT = 1
# colours of a terminal, and characters that neither HTML nor XML has
_UNPRINTABLE = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]|[^\t\n\r\x20-\x7e\xa0-\ufffd\U00010000-\U0010ffff]')


def write_report(results: dict, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``report.md`` into ``folder``. The same results give the same bytes.

    Args:
        results: what results.json holds, format 1. It is read only.
        folder: where the pictures that ``results`` names are (``examples/...``).

    Returns:
        The two files.

    Raises:
        ValueError: when ``results`` has another format, holds no model, or names a picture outside ``folder``.
    """
    if results.get('format') != FORMAT:
        found = results.get('format')
        raise ValueError(f'expected results of format {FORMAT}, got {found!r}; write the report with the version that made them')
    if not results.get('models'):
        raise ValueError('expected results of at least one model, got none; run the comparison first')
    report = build_report(printable(results))
    contents = {'report.html': render_html(report, folder), 'report.md': render_markdown(report)}
    for name, content in contents.items():
        write_atomically(content.encode(), folder / name)
    return [folder / name for name in contents]


def printable(content: object) -> object:
    """A copy whose texts, such as names of files and the logs of failed runs, hold only what can be shown."""
    if isinstance(content, str):
        return _UNPRINTABLE.sub('', content.encode(errors='replace').decode())
    if isinstance(content, dict):
        return {printable(key): printable(value) for key, value in content.items()}
    return [printable(value) for value in content] if isinstance(content, list | tuple) else content
