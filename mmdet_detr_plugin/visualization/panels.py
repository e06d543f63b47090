"""Rows of small pictures of one image, with heat maps, boxes and points on it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..files import write_atomically

COLOUR_MAP = matplotlib.colormaps['inferno']  # perceptually uniform, also for colour-blind eyes and in grey
# Okabe and Ito's colours but for black and white; those that stand out on dark pictures first
PALETTE = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#CC79A7', '#D55E00', '#0072B2')
LONGEST_SIDE = 900  # pixels of a picture under its drawing
LEAST_PEAK = 4  # times the even share of a cell: see ``brightest``
DIMMED = 0.5  # brightness of the image under a heat map
DIMMED_OUTSIDE = 0.35  # and where it is not meant


@dataclass(frozen=True)
class BoxMark:
    """A box_xyxy_abs to draw; ``style`` is 'solid', 'dashed' or 'faint'."""

    box_xyxy_abs: Sequence[float]
    colour: str
    text: str = ''
    style: str = 'solid'


@dataclass
class Panel:
    """One small picture.

    Attributes:
        title: above it.
        heat: (height, width) in [0, 1], in the size of the reduced image; None = the image as it is.
        boxes: to draw.
        points: (x, y) and colour of each.
        lit: a box_xyxy_abs outside of which the image is dimmed.
        mask: (H, W) of bool in the size of the original image, outside of which the image is dimmed.
    """

    title: str
    heat: np.ndarray | None = None
    boxes: list[BoxMark] = field(default_factory=list)
    points: list[tuple[float, float, str]] = field(default_factory=list)
    lit: Sequence[float] | None = None
    mask: np.ndarray | None = None


def colour_of(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def reduced(pixels: np.ndarray, longest_side: int = LONGEST_SIDE) -> np.ndarray:
    """The image, smaller where its longer side is longer."""
    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons (n, 2) of x and y around a mask (H, W), holes among them."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0] for contour in contours]


def brightest(weights: np.ndarray, num_cells: int) -> float:
    """The weight that gets the brightest colour: the largest, but ``LEAST_PEAK`` times the even share of each of the cells at least, so
    that attention that is spread evenly looks dark and even."""
    return max(float(weights.max()), LEAST_PEAK / num_cells)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colours over the image in grey and dimmed; the more there is, the less of the image shows.

    Args:
        pixels: (height, width, 3), RGB, uint8.
        heat: (height, width), in [0, 1].
    """
    grey = DIMMED * cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    opacity = opacity_of(heat)[..., None]
    return ((1 - opacity) * grey + opacity * 255 * COLOUR_MAP(heat)[..., :3]).round().astype(np.uint8)


def opacity_of(heat: np.ndarray) -> np.ndarray:
    return 0.8 * np.sqrt(heat)


def draw_panels(
    pixels: np.ndarray, rows: Sequence[Sequence[Panel]], title: str, note: str = '', image_size: tuple[int, int] | None = None
) -> Figure:
    """A figure of equally large panels.

    Args:
        pixels: (height, width, 3), RGB, uint8; reduced already.
        rows: of the same length but for the last, which may be shorter.
        title: above all.
        note: below all.
        image_size: (height, width) of the original image, in whose pixels boxes and points are; None = ``pixels`` is it.
    """
    height, width = image_size or pixels.shape[:2]
    columns = len(rows[0])
    panel_width = 2.9 if columns > 1 else 4.5
    panel_height = min(max(panel_width * height / width, 0.6), 2 * panel_width)
    has_heat = any(panel.heat is not None for row in rows for panel in row)
    foot = 0.28 + (0.22 if has_heat else 0) + 0.135 * note.count('\n')
    gap = 0.16 + 0.14 * max(panel.title.count('\n') + 1 for row in rows for panel in row)
    size = (max(panel_width * columns, 4.5), (panel_height + gap) * len(rows) + 0.4 + foot)
    with matplotlib.rc_context({'text.parse_math': False}):  # names may hold dollars
        figure = Figure(figsize=size, dpi=110)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axis in grid.flat:
            axis.set_axis_off()
        for axes, row in zip(grid, rows):
            for axis, panel in zip(axes, row):
                _draw_panel(axis, pixels, panel, (height, width))
        figure.suptitle(title, fontsize=10, x=0.02, ha='left', y=1 - 0.1 / size[1], va='top')
        figure.subplots_adjust(0.01, foot / size[1], 0.99, 1 - (0.34 + gap) / size[1], wspace=0.03, hspace=gap / panel_height)
        figure.text(0.02, 0.06 / size[1], note, fontsize=7.5, color='#444444', va='bottom')
        if has_heat:
            bar = figure.add_axes((0.02, (foot - 0.17) / size[1], min(0.3, 2 / size[0]), 0.09 / size[1]))
            figure.colorbar(ScalarMappable(cmap=COLOUR_MAP), cax=bar, orientation='horizontal', ticks=[0, 1])
            bar.set_xticks([])
            figure.text(
                0.03 + min(0.3, 2 / size[0]),
                (foot - 0.125) / size[1],
                f'none to most (named above), at least {LEAST_PEAK} x even',
                fontsize=7.5,
                va='center',
                color='#444444',
            )
        return figure


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all."""
    write_atomically(_png_of(figure).getvalue(), path)
    return path


def rgb_of(figure: Figure) -> np.ndarray:
    """(height, width, 3), uint8."""
    return np.array(Image.open(_png_of(figure)).convert('RGB'))


def _png_of(figure: Figure) -> io.BytesIO:
    content = io.BytesIO()
    figure.savefig(content, format='png')
    return content


def _draw_panel(axis, pixels: np.ndarray, panel: Panel, image_size: tuple[int, int]) -> None:
    height, width = image_size
    shown = pixels if panel.heat is None else overlay(pixels, panel.heat)
    if panel.lit is not None:
        shown = _dimmed_outside(shown, panel.lit, image_size)
    if panel.mask is not None:
        inside = cv2.resize(panel.mask.astype(np.uint8), shown.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None]
        shown = np.where(inside, shown, (shown * DIMMED_OUTSIDE).astype(np.uint8))
    axis.imshow(shown, extent=(0, width, height, 0), aspect='auto')
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_title(panel.title, fontsize=8.5, loc='left', pad=3)
    for mark in panel.boxes:
        x0, y0, x1, y1 = mark.box_xyxy_abs
        look = dict(solid=dict(linewidth=1.8), dashed=dict(linewidth=1.3, linestyle=(0, (4, 2))), faint=dict(linewidth=0.7, alpha=0.45))
        axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=mark.colour, clip_on=True, **look[mark.style]))
        if mark.text:
            place = dict(facecolor=mark.colour, edgecolor='none', pad=0.8, alpha=0.9)
            axis.text(max(x0, 0), max(y0, 0), mark.text, fontsize=6.5, color='black', va='top', bbox=place, clip_on=True)
    for x, y, colour in panel.points:
        axis.plot(x, y, marker='o', markersize=7, markerfacecolor=colour, markeredgecolor='black', markeredgewidth=1.2, clip_on=False)


def _dimmed_outside(pixels: np.ndarray, box_xyxy_abs: Sequence[float], image_size: tuple[int, int]) -> np.ndarray:
    scale_y, scale_x = (side / image for side, image in zip(pixels.shape[:2], image_size))
    x0, y0, x1, y1 = (max(0, round(float(value) * scale)) for value, scale in zip(box_xyxy_abs, (scale_x, scale_y) * 2))
    dimmed = (pixels * DIMMED_OUTSIDE).astype(np.uint8)
    dimmed[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
    return dimmed
