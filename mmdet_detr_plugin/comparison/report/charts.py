"""The kinds of charts: lines, grouped bars, intervals around zero."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .blocks import Panel
from .formatting import short
from .palette import colour, dashes, marker
from .svg import PAGE, TEXT, style, to_svg

WIDTH, HEIGHT = 4.7, 3.2  # inches; small, so that text stays readable on a phone
STEPS = (1, 2, 5, 10)  # of ticks, times a power of ten
MAX_MARKERS = 9
LABEL_LENGTH = 60  # characters that fit across a chart


@dataclass(frozen=True)
class Line:
    """Values of one model; ``thin`` for one of its seeds."""

    series: int
    x: Sequence[float]
    y: Sequence[float]
    thin: bool = False


@dataclass(frozen=True)
class Interval:
    """A difference with its limits.

    Attributes:
        labels: lines of text above it.
        filled: whether the limits leave out zero.
    """

    labels: tuple[str, ...]
    value: float
    low: float
    high: float
    filled: bool


def line_chart(
    key: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    whole_x: bool = False,
    unit_square: bool = False,
    diagonal: bool = False,
) -> Panel:
    """Curves, from zero upwards.

    Args:
        key: another one for each chart of a page.
        whole_x: ticks at whole numbers.
        unit_square: both axes from 0 to 1.
        diagonal: draw where x equals y.
    """
    with style(key):
        figure, axes = _axes(HEIGHT)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=TEXT, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.6)
        for line in sorted(lines, key=lambda line: not line.thin):  # the means lie on top
            _draw_line(axes, line)
        if unit_square:
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        else:
            axes.set_ylim(bottom=min([0, *(y for line in lines for y in line.y)]))
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole_x, steps=STEPS))
            if len(positions := {x for line in lines for x in line.x}) == 1:
                axes.set_xticks(list(positions))
        axes.set(xlabel=x_label, ylabel=y_label)
        return Panel(title, description, to_svg(figure, key, title, description))


def bar_chart(key: str, title: str, description: str, groups: Sequence[str], bars: dict[int, Sequence[float]], x_label: str) -> Panel:
    """Horizontal bars in groups.

    Args:
        bars: a model's series number -> a value for each group.
    """
    thickness = 0.8 / len(bars)
    with style(key):
        figure, axes = _axes(0.8 + len(groups) * (0.17 * len(bars) + 0.14))
        for row, (series, values) in enumerate(bars.items()):
            positions = [group + (row - (len(bars) - 1) / 2) * thickness for group in range(len(groups))]
            axes.barh(positions, values, thickness * 0.3, color=colour(series))
            axes.plot(values, positions, linestyle='none', marker=marker(series), markersize=5.5, color=colour(series), clip_on=False)
        axes.set_yticks(range(len(groups)), groups)
        axes.tick_params(axis='y', length=0, pad=7)
        axes.grid(axis='y', visible=False)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        return Panel(title, description, to_svg(figure, key, title, description))


def interval_chart(key: str, title: str, description: str, intervals: Sequence[Interval], x_label: str) -> Panel:
    """A forest plot: one line for each interval, its label above it, and zero."""
    with style(key):
        figure, axes = _axes(0.75 + 0.66 * len(intervals))
        axes.axvline(0, color=TEXT, linewidth=1)
        for row, interval in enumerate(intervals):
            axes.plot([interval.low, interval.high], [row, row], color=TEXT, linewidth=1.8, solid_capstyle='butt')
            face = TEXT if interval.filled else 'none'
            axes.plot([interval.value], [row], marker='o', markersize=6.5, color=TEXT, markerfacecolor=face)
            for limit in (interval.low, interval.high):
                axes.plot([limit], [row], marker='|', markersize=7, color=TEXT)
            for line, label in enumerate(reversed(interval.labels)):
                place = (0, row - 0.2 - 0.23 * line)
                box = dict(facecolor=PAGE, edgecolor='none', pad=0.5)  # the lines behind it would cross the text out
                text = axes.text(*place, short(label, LABEL_LENGTH), transform=axes.get_yaxis_transform(), fontsize=8, bbox=box)
                text.set_in_layout(False)  # it lies inside the axes, which a long one would squeeze
        reach = 1.1 * max(max(abs(interval.low), abs(interval.high)) for interval in intervals) or 0.01
        axes.set(xlim=(-reach, reach), ylim=(len(intervals) - 0.65, -0.75), xlabel=x_label)
        axes.set_yticks([])
        axes.grid(axis='y', visible=False)
        axes.spines['left'].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        return Panel(title, description, to_svg(figure, key, title, description))


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout='constrained')
    return figure, figure.add_subplot()


def _draw_line(axes: Axes, line: Line) -> None:
    if line.thin:
        axes.plot(line.x, line.y, color=colour(line.series), linewidth=0.8, alpha=0.55)
        return
    axes.plot(
        *(line.x, line.y),
        color=colour(line.series),
        linewidth=2,
        linestyle=(0, dashes(line.series)) if dashes(line.series) else 'solid',
        marker=marker(line.series),
        markersize=5,
        clip_on=False,  # markers on the edge are whole
        markevery=max(1, -(-len(line.x) // MAX_MARKERS)),
    )
