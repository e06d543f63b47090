"""A matplotlib figure as SVG inside an HTML page: it takes the page's colours, names nothing outside, and is always the same."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from .palette import COLOURS, css_colour

TEXT, PAGE = '#010203', '#fdfcfb'  # stand for the colours of the page's own text and background
STYLE = {
    'svg.fonttype': 'none',  # text stays text: selectable, small, in the page's font
    'text.parse_math': False,  # names may hold dollars
    'font.size': 9,
    'axes.labelsize': 9,
    'xtick.labelsize': 8.5,
    'ytick.labelsize': 8.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.16,
    'grid.linewidth': 0.7,
    'axes.linewidth': 0.7,
    'xtick.major.width': 0.7,
    'ytick.major.width': 0.7,
    'xtick.major.size': 3,
    'ytick.major.size': 3,
    'axes.axisbelow': True,
    **dict.fromkeys(('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color', 'grid.color'), TEXT),
}
_SVG = '{http://www.w3.org/2000/svg}'
_LINK = '{http://www.w3.org/1999/xlink}href'


def style(key: str):
    """The settings under which a chart is drawn and written, as a context.

    Args:
        key: another one for each chart, so that ids differ between charts, and only there.
    """
    return matplotlib.rc_context({**STYLE, 'svg.hashsalt': key})


def to_svg(figure: Figure, key: str, title: str, description: str) -> str:
    """Write a figure, inside ``style(key)``."""
    file = io.BytesIO()
    figure.savefig(file, format='svg', transparent=True, metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == _SVG + 'style']:
            parent.remove(child)  # a style inside one picture would hold for the page
    referred = set(re.findall(r'#([\w.-]+)', ' '.join(value for element in root.iter() for value in element.attrib.values())))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {name: value for name, value in map(_attribute, element.attrib.items()) if name != 'id' or value in referred}
        _prefix_ids(element.attrib, key)
    _name(root, key, title, description)
    return ElementTree.tostring(root, encoding='unicode')


def _attribute(item: tuple[str, str]) -> tuple[str, str]:
    name, value = item
    if name == 'style':
        value = re.sub(r'font-family:[^;]*;? ?', '', value).replace(TEXT, 'currentColor').replace(PAGE, 'var(--page)')
        for series, (light, _) in enumerate(COLOURS):
            value = value.replace(light, css_colour(series))
    return ('href' if name == _LINK else name), value


def _prefix_ids(attributes: dict[str, str], key: str) -> None:
    for name, value in attributes.items():
        if name == 'id':
            attributes[name] = f'{key}-{value}'
        elif name == 'href':
            attributes[name] = value.replace('#', f'#{key}-')
        elif 'url(#' in value:
            attributes[name] = value.replace('url(#', f'url(#{key}-')


def _name(root: ElementTree.Element, key: str, title: str, description: str) -> None:
    for name in ('width', 'height', 'version'):
        root.attrib.pop(name, None)  # the page sets the size
    root.attrib.update({'class': 'chart', 'role': 'img', 'aria-labelledby': f'{key}-title {key}-desc'})
    for position, (tag, text) in enumerate((('title', title), ('desc', description))):
        element = ElementTree.Element(tag, id=f'{key}-{tag}')
        element.text = text
        root.insert(position, element)
