"""The files that show one image's attention."""

from collections.abc import Sequence
from pathlib import Path

from ..files import write_atomically
from .attention_figures import attention_figures
from .attention_page import render_page
from .image_attention import ImageAttention
from .panels import write_png

NUM_POINTS = 5  # where none are chosen: centres of the best detections


def write_attention(
    image: ImageAttention,
    folder: Path,
    model: str,
    points: Sequence[tuple[float, float]] | None = None,
    layer: int | None = None,
    all_layers: bool = False,
    heads: bool = False,
) -> list[Path]:
    """Write an image's figures (PNG) and its page (``attention.html``).

    Args:
        model: what the detector is called.
        points: (x, y) in pixels of the image, from which the encoder's attention is drawn; None = centres of the best detections.
        layer: to draw, counted from 0; None = the last one. Where encoder or decoder have fewer, the last one of these.
        all_layers: draw all of them.
        heads: draw each head of the cross-attention by itself too.

    Raises:
        ValueError: when a point lies outside the image, or neither encoder nor decoder has such a layer. Nothing is written then.
    """
    num_layers = max(image.num_layers, len(image.record.encoder))
    if layer is not None and layer >= num_layers:
        raise ValueError(
            f'expected a layer from 1 to {num_layers}, got {layer + 1}; the encoder has {len(image.record.encoder)}, the decoder '
            f'{image.num_layers}'
        )
    for x, y in points or []:
        image.geometry.cell_at(x, y)  # refuses points outside
    layers = range(num_layers) if all_layers else None if layer is None else [layer]
    figures = attention_figures(image, points or image.centres(NUM_POINTS), layers, heads)
    written = [write_png(figure, folder / f'{name}.png') for name, figure in figures]
    page = folder / 'attention.html'
    write_atomically(render_page(image, Path(image.name).name, model, layer).encode(), page)
    return [*written, page]
