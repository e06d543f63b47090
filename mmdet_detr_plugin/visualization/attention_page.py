"""One HTML file for an image, in which pointing at a detection shows its attention. It needs nothing else and asks for nothing."""

import base64
import hashlib
import io
import math
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..comparison.report.html import TEMPLATES as REPORT_TEMPLATES
from ..comparison.report.html import breakable
from ..comparison.report.palette import DARK_PAGE, LIGHT_PAGE
from .attention_figures import choice_of
from .image_attention import ImageAttention
from .panels import COLOUR_MAP, LEAST_PEAK, brightest, colour_of, opacity_of, outline, reduced

TEMPLATES = Path(__file__).parent / 'templates'
ENCODER_BYTES = 2_000_000  # the encoder's table; where it would be larger, points on a grid have to do


def render_page(image: ImageAttention, title: str, model: str, start_layer: int | None = None) -> str:
    """The page, with its style, script, image and numbers inside.

    Args:
        title: the image's name.
        model: what the detector is called.
        start_layer: that is shown first, counted from 0; None = the last one.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['breakable'] = breakable
    script = (TEMPLATES / 'attention.js').read_text()
    style = (REPORT_TEMPLATES / 'style.css').read_text() + (TEMPLATES / 'attention.css').read_text()
    height, width = image.pixels.shape[:2]
    encoder = encoder_table(image)
    return environment.get_template('attention.html').render(
        title=title,
        model=model,
        choice=choice_of(image),
        image=image,
        width=width,
        height=height,
        picture=_picture(image.pixels),
        detections=[dict(caption=image.caption(number), colour=colour_of(number)) for number in range(len(image.query))],
        encoder=encoder,
        least_peak=LEAST_PEAK,
        heads=image.record.queries[-1].num_heads,
        start=dict(decoder=_start(start_layer, image.num_layers), encoder=_start(start_layer, len(image.record.encoder))),
        data=dict(
            width=width,
            height=height,
            colours=colour_table(),
            detections=_detections(image),
            cross=cross_table(image),
            queries=[np.round(image.query_weights(layer).astype(float), 4).tolist() for layer in range(image.num_layers)],
            encoder=encoder,
        ),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        pages=dict(light=LIGHT_PAGE, dark=DARK_PAGE),
    )


def cross_table(image: ImageAttention) -> dict | None:
    """Cross-attention as bytes: see ``_table``; rows are the shown queries."""
    if not image.record.cross:
        return None
    return _table(image, [image.cross_weights(layer) for layer in range(image.num_layers)])


def encoder_table(image: ImageAttention, max_bytes: int = ENCODER_BYTES) -> dict | None:
    """Encoder self-attention as bytes, from every cell, or from every ``step``-th in both directions where ``max_bytes`` ask for it: see
    ``_table``; rows are ``sources`` (rows, columns) of cells."""
    if not image.record.encoder:
        return None
    rows, columns = image.geometry.valid_size
    num_layers, step = len(image.record.encoder), 1
    while math.ceil(rows / step) * math.ceil(columns / step) * rows * columns * num_layers > max_bytes and step < max(rows, columns):
        step += 1
    firsts = [list(range(min(step // 2, count - 1), count, step)) for count in (rows, columns)]
    cells = [row * image.geometry.map_size[1] + column for row in firsts[0] for column in firsts[1]]
    table = _table(image, [image.encoder_weights(layer, cells) for layer in range(num_layers)])
    return table | dict(step=step, sources=[len(first) for first in firsts], first=[first[0] for first in firsts])


def colour_table() -> str:
    """Red, green, blue and opacity of 256 weights, from none to the brightest, in Base64."""
    heat = np.linspace(0, 1, 256)
    table = np.concatenate((COLOUR_MAP(heat)[:, :3], opacity_of(heat)[:, None]), axis=1)
    return _base64((255 * table).round())


def _table(image: ImageAttention, layers: list[np.ndarray]) -> dict:
    """Weights (R, N) of each layer without the cells that are padding, as bytes.

    Returns:
        ``size`` rows and columns of cells; ``cell`` height and width of one in pixels; ``most`` (L, R), the largest weights, as shares;
        ``bytes``: (L, R, rows, columns) in Base64, of which 255 is the brightest.
    """
    most, table = [], []
    for weights in layers:
        cells = image.geometry.without_padding(weights)
        num_cells = cells.shape[1] * cells.shape[2]
        scale = np.array([brightest(row, num_cells) for row in cells])
        most.append([round(float(row.max()), 5) for row in cells])
        table.append((255 * cells / scale[:, None, None]).round())
    return dict(size=image.geometry.valid_size, cell=image.geometry.cell_size, most=most, bytes=_base64(np.stack(table)))


def _detections(image: ImageAttention) -> list[dict]:
    found = []
    for number, name in enumerate(image.label_names):
        layers = []
        for layer in range(image.num_layers):
            entry = dict(score=round(float(image.scores[layer, number]), 4), box=_rounded(image.boxes[layer, number]))
            if image.regions is not None:
                entry['region'] = _rounded(image.regions[layer, number])
            layers.append(entry)
        entry = dict(name=name, colour=colour_of(number), layers=layers)
        if image.masks is not None:
            entry['mask'] = ''.join(
                'M' + 'L'.join(f'{x} {y}' for x, y in polygon.tolist()) + 'z' for polygon in outline(image.masks[number])
            )
        found.append(entry)
    return found


def _start(layer: int | None, number: int) -> int:
    return number - 1 if layer is None else min(layer, number - 1)


def _picture(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(reduced(pixels)).save(content, format='jpeg', quality=88)
    return f'data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}'


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()


def _rounded(box_xyxy_abs: np.ndarray) -> list[float]:
    return np.round(box_xyxy_abs.astype(float), 1).tolist()
