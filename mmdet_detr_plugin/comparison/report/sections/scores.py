"""What the scores are worth: calibration, precision and recall."""

from ..blocks import Figure, Section, Table
from ..charts import Line, line_chart
from ..formatting import fixed, integer
from .models import legend, name_cell, where


def calibration(results: dict) -> Section | None:
    measured = where(results, lambda model: (model.get('calibration') or {}).get('bins'))
    if not measured:
        return None
    bins = {series: [entry for entry in results['models'][series]['calibration']['bins'] if entry['count']] for series in measured}
    error = {series: results['models'][series]['calibration'].get('expected_error') for series in measured}
    names = dict(legend(results, measured))
    lines = [
        Line(series, [entry['confidence'] for entry in entries], [entry['precision'] for entry in entries])
        for series, entries in bins.items()
    ]
    description = '; '.join(f'{names[series]}: expected calibration error {fixed(error[series])}' for series in measured)
    panel = line_chart(
        *('calibration', 'Reliability diagram', description, lines, 'mean score of the detections', 'share that is right (IoU 0.5)'),
        unit_square=True,
        diagonal=True,
    )
    rows = tuple(
        (
            names[series],
            f'{entry["lower"]:.2g} to {entry["upper"]:.2g}',
            integer(entry['count']),
            fixed(entry['confidence']),
            fixed(entry['precision']),
        )
        for series, entries in bins.items()
        for entry in entries
    )
    table = Table('Detections by score', ('Model', 'Scores', 'Detections', 'Mean score', 'Share that is right'), rows, folded=True)
    figure = Figure(
        'Scores against the share that is right; dotted: where scores mean what they say', (panel,), legend(results, measured), table
    )
    reading = (
        'A score of 0.7 should be right in 7 of 10 detections (the dotted line): where fewer are right the model is too sure of itself, '
        'where more are right too modest; calibration does not tell how many objects are found.'
    )
    return Section('calibration', 'Calibration of scores', reading, (figure, _thresholds(results, error)))


def _thresholds(results: dict, error: dict[int, float | None]) -> Table:
    rows = []
    for series, model in enumerate(results['models']):
        point = model.get('operating_point') or {}
        figures = (fixed(point.get(key)) for key in ('score_thr', 'precision', 'recall', 'f1'))
        rows.append((name_cell(results, series), fixed(error.get(series)), *figures))
    columns = ('Model', 'Expected calibration error', 'Score threshold', 'Precision there', 'Recall there', 'F1 there')
    return Table('Calibration error, and the score threshold with the best F1', columns, tuple(rows))


def precision_recall(results: dict) -> Section | None:
    measured = where(results, lambda model: any(((model.get('precision_recall') or {}).get('precision') or {}).values()))
    if not measured:
        return None
    names = dict(legend(results, measured))
    curves = {series: results['models'][series]['precision_recall'] for series in measured}
    overlaps = list(dict.fromkeys(overlap for curve in curves.values() for overlap in curve['precision']))
    panels = []
    for overlap in overlaps:
        lines, gist = [], []
        for series, curve in curves.items():
            pairs = [pair for pair in zip(curve['recall'], curve['precision'].get(overlap) or []) if pair[1] is not None]
            found = sum(precision > 0 for _, precision in pairs)  # precision at a recall is the best from there on, so these come first
            drawn = pairs[: found + 1]  # to the first zero; more would cover other curves
            lines.append(Line(series, [recall for recall, _ in drawn], [precision for _, precision in drawn]))
            reached = pairs[found - 1][0] if found else 0.0
            gist.append(f'{names[series]}: finds up to {fixed(reached, 2)} of the objects')
        title = f'At IoU {overlap}'
        panels.append(line_chart(f'pr-{overlap.replace(".", "-")}', title, '; '.join(gist), lines, 'recall', 'precision', unit_square=True))
    figure = Figure(
        'Precision against recall, means over classes and seeds',
        tuple(panels),
        legend(results, measured),
        _numbers(curves, names, overlaps),
    )
    reading = (
        'Higher precision at the same recall is better, and where it drops to 0 the model finds no more objects at any threshold; '
        'it does not tell which threshold to use.'
    )
    return Section('precision-recall', 'Precision and recall', reading, (figure,))


def _numbers(curves: dict[int, dict], names: dict[int, str], overlaps: list[str]) -> Table:
    recalls = next(iter(curves.values()))['recall']
    rows = []
    for position, recall in enumerate(recalls):
        values = ((curve['precision'].get(overlap) or [None] * len(recalls))[position] for overlap in overlaps for curve in curves.values())
        rows.append((fixed(recall, 2), *(fixed(value) for value in values)))
    columns = ('Recall', *(f'IoU {overlap}, {names[series]}' for overlap in overlaps for series in curves))
    return Table('Precision at each recall', columns, tuple(rows), folded=True, step=10)
