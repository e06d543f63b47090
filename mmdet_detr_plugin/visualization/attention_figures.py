"""The paper's pictures of attention for one image, as figures: encoder (figure 3), decoder (figure 6), queries and boxes by layer."""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .image_attention import ImageAttention
from .panels import COLOUR_MAP, BoxMark, Panel, brightest, colour_of, draw_panels, reduced

COLUMNS = 4  # of pictures that are not by layer
CELL, LETTER = 0.42, 0.068  # inches: a cell of a matrix, a letter of its names


def attention_figures(
    image: ImageAttention, points: Sequence[tuple[float, float]], layers: Sequence[int] | None = None, heads: bool = False
) -> Iterator[tuple[str, Figure]]:
    """All figures of an image that its model allows, with their names.

    Args:
        points: (x, y) in pixels of the image, from which the encoder's attention is shown.
        layers: counted from 0; those that encoder or decoder do not have are left out of its figures. None = the last of each.
        heads: a figure more, of each head of the cross-attention in the last of the layers.

    Raises:
        ValueError: when a point lies outside the image.
    """
    decoder_layers = _existing(layers, image.num_layers)
    if image.record.encoder:
        yield 'encoder', encoder_figure(image, points, _existing(layers, len(image.record.encoder)))
    if image.record.cross:
        yield 'cross', cross_figure(image, decoder_layers)
        if heads:
            yield 'heads', heads_figure(image, decoder_layers[-1])
    else:
        yield 'regions', regions_figure(image, range(image.num_layers))
    if image.masks is not None:
        yield 'masks', masks_figure(image)
    yield 'queries', queries_figure(image, decoder_layers)
    yield 'boxes', boxes_figure(image)


def encoder_figure(image: ImageAttention, points: Sequence[tuple[float, float]], layers: Sequence[int]) -> Figure:
    """The image with its points, and what the cell of each attends to."""
    pixels = reduced(image.pixels)
    cells = [image.geometry.cell_at(x, y) for x, y in points]
    marks = [(x, y, colour_of(number)) for number, (x, y) in enumerate(points)]
    heats = {layer: image.encoder_weights(layer, cells) for layer in layers}
    panels = [Panel('the points', points=marks)]
    for layer in layers:
        for number, (weights, mark) in enumerate(zip(heats[layer], marks)):
            title = f'point {number + 1}, layer {layer + 1}\n{_most(image, weights)}'
            panels.append(Panel(title, _heat(image, weights, pixels), points=[mark]))
    rows = [[panels[0], *panels[1 + len(points) * row : 1 + len(points) * (row + 1)]] for row in range(len(layers))]
    if len(layers) == 1:
        rows = _wrapped(panels)
    heads = image.record.encoder[layers[-1]].num_heads
    return _figure(image, pixels, rows, 'Encoder self-attention from points', f'Mean of {heads} heads')


def cross_figure(image: ImageAttention, layers: Sequence[int]) -> Figure:
    """What each shown query attends to in the image: a row for each query and a column for each layer, or wrapped for one layer."""
    pixels = reduced(image.pixels)
    weights = {layer: image.cross_weights(layer) for layer in layers}
    rows = [[_cross_panel(image, pixels, number, layer, weights[layer]) for layer in layers] for number in range(len(image.query))]
    if len(layers) == 1:
        rows = _wrapped([row[0] for row in rows])
    heads = image.record.cross[layers[-1]].num_heads
    return _figure(image, pixels, rows, 'Decoder cross-attention of each detection', f'Mean of {heads} heads')


def heads_figure(image: ImageAttention, layer: int) -> Figure:
    """Each head of the cross-attention, a row for each shown query."""
    pixels = reduced(image.pixels)
    heads = image.cross_weights(layer, per_head=True)  # (H, S, N)
    rows = []
    for number in range(len(image.query)):
        box = BoxMark(image.boxes[layer, number], colour_of(number))
        named = [f'{image.caption(number, layer)}, ' if head == 0 else '' for head in range(len(heads))]
        rows.append(
            [
                Panel(f'{name}head {head + 1}\n{_most(image, weights[number])}', _heat(image, weights[number], pixels), [box])
                for head, (name, weights) in enumerate(zip(named, heads))
            ]
        )
    return _figure(image, pixels, rows, f'Decoder cross-attention by head, layer {layer + 1}', 'Each head by itself')


def regions_figure(image: ImageAttention, layers: Sequence[int]) -> Figure:
    """``LocalDETR``: what each layer looks at, and the box it makes of it; rows and columns as in ``cross_figure``."""
    pixels = reduced(image.pixels)
    rows = []
    for number in range(len(image.query)):
        colour, row = colour_of(number), []
        for layer in layers:
            seen, box = image.regions[layer, number], image.boxes[layer, number]
            marks = [BoxMark(seen, colour, style='dashed'), BoxMark(box, colour)]
            row.append(Panel(f'{image.caption(number, layer)}, layer {layer + 1}', boxes=marks, lit=seen))
        rows.append(row)
    if len(layers) == 1:
        rows = _wrapped([row[0] for row in rows])
    return _figure(image, pixels, rows, 'Where each query looks (lit, dashed) and the box it makes of it', '')


def boxes_figure(image: ImageAttention) -> Figure:
    """The boxes of the shown queries after each decoder layer."""
    pixels = reduced(image.pixels)
    numbers, panels = range(len(image.query)), []
    for layer in range(image.num_layers):
        marks = [BoxMark(image.boxes[layer, number], colour_of(number), str(number + 1)) for number in numbers]
        panels.append(Panel(f'layer {layer + 1} of {image.num_layers}', boxes=marks[::-1]))  # the best on top
    scores = [' > '.join(f'{score:.2f}' for score in image.scores[:, number]) for number in numbers]
    names = [f'{number + 1} {image.label_names[number]} {scores[number]}' for number in numbers]
    rows = _wrapped(panels, 3)
    lines = [';  '.join(names[start : start + len(rows[0])]) for start in range(0, len(names), len(rows[0]))]
    return _figure(image, pixels, rows, 'Boxes and scores by decoder layer', '\n'.join(lines))


def masks_figure(image: ImageAttention) -> Figure:
    """What the mask head makes of each shown query: the mask is lit."""
    pixels, area = reduced(image.pixels), image.masks[0].size
    panels = []
    for number, mask in enumerate(image.masks):
        box = BoxMark(image.boxes[-1, number], colour_of(number))
        panels.append(Panel(f'{image.caption(number)}\n{mask.sum() / area:.1%} of the image', boxes=[box], mask=mask))
    return _figure(image, pixels, _wrapped(panels), 'Mask of each detection (lit), before segments compete for pixels', '')


def queries_figure(image: ImageAttention, layers: Sequence[int]) -> Figure:
    """How much of its attention each shown query gives to each other."""
    names = [image.caption(number) for number in range(len(image.query))]
    heads = image.record.queries[layers[-1]].num_heads
    # in inches: the matrix, and what its names take beside and below it
    high, wide = CELL * len(names), CELL * (len(names) + 1)
    text = LETTER * max(map(len, [*names, 'all others']))
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    panel_width, panel_height = text + wide + 0.6, text + high + 0.75
    size = (max(panel_width * columns, 4.6), panel_height * rows + 0.6)
    with matplotlib.rc_context({'text.parse_math': False}):
        figure = Figure(figsize=size, dpi=110)
        title = f'{_shortened(image.name)}\nDecoder self-attention between the shown queries\nMean of {heads} heads'
        figure.suptitle(title, fontsize=9, x=0.02, ha='left', y=1 - 0.06 / size[1], va='top')
        for number, layer in enumerate(layers):
            row, column = divmod(number, columns)
            left, bottom = panel_width * column + text + 0.45, panel_height * (rows - 1 - row) + text + 0.4
            axis = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], high / size[1]))
            _draw_matrix(axis, image.query_weights(layer), names, f'layer {layer + 1}')
        return figure


def _draw_matrix(axis, weights: np.ndarray, names: Sequence[str], title: str) -> None:
    """(S, S + 1) with the numbers in the cells."""
    shown, others = weights[:, :-1], np.arange(weights.shape[1]) == len(weights)
    axis.imshow(np.ma.array(weights, mask=np.zeros_like(weights) + others), cmap=COLOUR_MAP, vmin=0, vmax=shown.max())
    for (row, column), weight in np.ndenumerate(weights):
        colour = 'white' if column < len(weights) and weight < 0.6 * shown.max() else 'black'
        axis.text(column, row, f'{100 * weight:.1f}', ha='center', va='center', fontsize=7, color=colour)
    axis.set_xticks(range(len(names) + 1), [*names, 'all others'], rotation=60, ha='right', rotation_mode='anchor', fontsize=7.5)
    axis.set_yticks(range(len(names)), names, fontsize=7.5)
    axis.set_xlabel('... to this one', fontsize=8)
    axis.set_ylabel("% of this query's attention ...", fontsize=8)
    axis.set_title(title, fontsize=9)


def _cross_panel(image: ImageAttention, pixels: np.ndarray, number: int, layer: int, weights: np.ndarray) -> Panel:
    title = f'{image.caption(number, layer)}, layer {layer + 1}\n{_most(image, weights[number])}'
    return Panel(title, _heat(image, weights[number], pixels), [BoxMark(image.boxes[layer, number], colour_of(number))])


def _heat(image: ImageAttention, weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    num_cells = image.geometry.without_padding(weights).size
    return image.geometry.raster(weights, pixels.shape[:2]) / brightest(weights, num_cells)


def _most(image: ImageAttention, weights: np.ndarray) -> str:
    """The largest weight, and what an even one is exceeded by."""
    num_cells = image.geometry.without_padding(weights).size
    return f'most {weights.max():.1%} ({weights.max() * num_cells:.1f} x even)'


def _figure(image: ImageAttention, pixels: np.ndarray, rows: list[list[Panel]], title: str, note: str) -> Figure:
    note = '\n'.join(part for part in (note, choice_of(image)) if part)
    return draw_panels(pixels, rows, f'{_shortened(image.name)}\n{title}', note, image.pixels.shape[:2])


def choice_of(image: ImageAttention) -> str:
    """In words, which queries are shown."""
    above, shown = image.num_above, len(image.query)
    if above == shown:
        return f'Shown: the {shown} best detections, all with scores of at least {image.score_thr:g}'
    reach = 'none of which reaches' if not above else f'{above} of which {"reaches" if above == 1 else "reach"}'
    return f'Shown: the {shown} best queries, {reach} the score {image.score_thr:g}'


def _existing(layers: Sequence[int] | None, number: int) -> list[int]:
    wanted = [] if layers is None else [layer for layer in layers if layer < number]
    return wanted or [number - 1]


def _wrapped(panels: list[Panel], columns: int = COLUMNS) -> list[list[Panel]]:
    columns = min(columns, len(panels))
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def _shortened(name: str, length: int = 60) -> str:
    return name if len(name) <= length else f'...{name[3 - length :]}'
