"""The report as one HTML file that needs nothing else."""

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from .blocks import Report
from .palette import COLOURS, DARK_PAGE, LIGHT_PAGE, css_colour, css_variable, dashes, marker_path

TEMPLATES = Path(__file__).parent / 'templates'
LONGEST_WORD = 20  # characters in which a line may not break
MEDIA_TYPES = {'.png': 'image/png', '.jpg': 'image/jpeg', '.jpeg': 'image/jpeg', '.webp': 'image/webp'}
# aligned to the right: a number, with a spread or a short unit
_NUMBER = re.compile(r'[-+−]?\d+(\.\d+)?( ± \d+(\.\d+)?)?( [^\W\d]{1,4}| ?%)?')


def render_html(report: Report, folder: Path) -> str:
    """The page, with its style, script and pictures inside.

    Args:
        folder: where the report's pictures are; they go into the file.

    Raises:
        ValueError: when a picture lies outside ``folder`` or is no PNG, JPEG or WebP.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(breakable=breakable, marker_path=marker_path, dashes=_dash_array, colour=css_colour)
    script = (TEMPLATES / 'sort.js').read_text()
    return environment.get_template('report.html').render(
        report=report,
        number_columns=number_columns,
        picture=lambda file: data_uri(folder, file),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / 'style.css').read_text(),
        page_colours=dict(light=_page_colours(0, LIGHT_PAGE), dark=_page_colours(1, DARK_PAGE)),
    )


def data_uri(folder: Path, file: str) -> str | None:
    """A picture's content as an address; None where there is no such file."""
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f'expected pictures inside {folder}, got {file!r}; write them into the folder of the report')
    if path.suffix.lower() not in MEDIA_TYPES:
        raise ValueError(f'expected pictures that end in {", ".join(MEDIA_TYPES)}, got {file!r}; convert it')
    if not path.is_file():
        return None
    return f'data:{MEDIA_TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}'


def breakable(text: str) -> Markup:
    """Text whose names may break after underscores, slashes, dots and the like, and anywhere where they have none of these for long."""
    text = re.sub(r'(?<=\d) (?=[%±])', '\xa0', text.replace('\0', ''))
    marked = re.sub(r'[_/=,;|>)]+(?=\w|<)|(?<=[^\W\d])\.(?=[^\W\d])', '\\g<0>\0', text)
    marked = re.sub(rf'[^\s\0]{{{LONGEST_WORD}}}(?=[^\s\0])', '\\g<0>\0', marked)
    return Markup('<wbr>').join(escape(part) for part in marked.split('\0'))


def number_columns(table) -> list[bool]:
    """Which columns hold nothing but numbers and gaps."""
    cells = table.cells()
    return [all(row[column].text == '-' or _NUMBER.fullmatch(row[column].text) for row in cells) for column in range(len(table.columns))]


def _dash_array(series: int) -> str:
    """As matplotlib scales it: in widths of a line of 2."""
    return ' '.join(f'{2 * length:g}' for length in dashes(series))


def _page_colours(shade: int, page: str) -> Markup:
    variables = {'--page': page, **{css_variable(series): shades[shade] for series, shades in enumerate(COLOURS)}}
    return Markup(' '.join(f'{name}: {value};' for name, value in variables.items()))
