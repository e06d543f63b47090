"""A quantity of several models against a whole number, such as a layer or an epoch: chart and table."""

from ..blocks import Figure, Table
from ..charts import Line, line_chart
from ..formatting import fixed
from .models import legend


def curve_figure(
    results: dict, values: dict[int, dict[int, float]], *, key: str, title: str, caption: str, x_label: str, y_label: str, digits: int
) -> Figure | None:
    """None where there are no values.

    Args:
        values: model's series number -> position -> value.
        key: names the chart.
        digits: of the values in the table.
    """
    values = {series: curve for series, curve in values.items() if curve}
    if not values:
        return None
    names = dict(legend(results, list(values)))
    lines = [Line(series, sorted(curve), [curve[position] for position in sorted(curve)]) for series, curve in values.items()]
    ends = {series: (min(curve), max(curve)) for series, curve in values.items()}
    gist = (
        f'{names[series]}: ' + ', '.join(f'{fixed(values[series][end], digits)} at {x_label} {end}' for end in dict.fromkeys(ends[series]))
        for series in values
    )
    panel = line_chart(key, title, '; '.join(gist), lines, x_label, y_label, whole_x=True)
    positions = sorted({position for curve in values.values() for position in curve})
    rows = tuple((str(position), *(fixed(curve.get(position), digits) for curve in values.values())) for position in positions)
    table = Table(f'{title}, in numbers', (x_label.capitalize(), *names.values()), rows, folded=True)
    return Figure(caption, (panel,), tuple(names.items()), table)
