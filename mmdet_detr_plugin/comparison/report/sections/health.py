"""How the training of models with queries went."""

from ..blocks import Figure, Section, Table, Text
from ..formatting import integer, joined, percent
from .curve_figure import curve_figure
from .detections import layer_figure
from .models import name_cell, names, where


def health(results: dict) -> Section | None:
    measured = where(results, lambda model: model.get('health'))
    if not measured:
        return None
    rows = []
    for series in measured:
        found = results['models'][series]['health']
        shares = (percent(found.get(key)) for key in ('unused_queries', 'collapsed_pairs'))
        rows.append((name_cell(results, series), integer(found.get('queries')), *shares))
    blocks = [
        Table(
            'Queries, means over seeds; unused: matched to no object of any image, - where each image selects its own',
            ('Model', 'Queries', 'Unused queries (%)', 'Collapsed pairs (%)'),
            tuple(rows),
        )
    ]
    blocks += [figure for figure in (_matching(results, measured), layer_figure(results, 'AP', 'AP by decoder layer', 'AP', 3)) if figure]
    others = [name for series, name in enumerate(names(results)) if series not in measured]
    if others:
        blocks.append(Text(f'Not measured for {joined(others)}, where nothing is matched to queries or no run has finished.'))
    reading = (
        'Matching that settles, few collapsed pairs (queries with the same box) and layers that improve are signs of a healthy training; '
        'unused queries are normal where there are more queries than objects, and all this does not tell the accuracy.'
    )
    return Section('health', 'Health of the training', reading, tuple(blocks))


def _matching(results: dict, measured: list[int]) -> Figure | None:
    values = {
        series: {
            entry['epoch']: 100 * entry['share']
            for entry in results['models'][series]['health'].get('matching_changes') or []
            if entry['share'] is not None
        }
        for series in measured
    }
    title, caption = 'Matching that changes between epochs', 'Objects that are matched to another query than after the epoch before'
    label = 'objects with another query (%)'
    return curve_figure(results, values, key='matching', title=title, caption=caption, x_label='epoch', y_label=label, digits=1)
