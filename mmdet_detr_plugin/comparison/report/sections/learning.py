"""How accuracy grew in training, and when it would cross (a prediction)."""

from collections.abc import Iterable
from statistics import fmean, stdev

from ..blocks import Figure, Section, Table, Text
from ..charts import Line, Panel, line_chart
from ..formatting import MISSING, fixed, integer
from .models import done, legend, name_cell, pair_cells, where

ROWS_IN_MARKDOWN = 15


def mean_points(model: dict) -> list[dict]:
    """The mean over the seeds that finished, at the epochs where each was evaluated: epoch, images, minutes, AP, std; None if unknown."""
    curves = [points for run in done(model) if (points := _points(run))]
    mean = []
    for epoch in sorted(set.intersection(*map(set, curves))) if curves else []:
        entries = [points[epoch] for points in curves]
        point = {key: _mean([entry[key] for entry in entries]) for key in ('epoch', 'images', 'minutes', 'AP')}
        mean.append({**point, 'std': stdev(entry['AP'] for entry in entries) if len(entries) > 1 else None})
    return mean


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else fmean(values)


def _points(run: dict) -> dict[float, dict]:
    """A run's evaluations by epoch; those without an AP left out."""
    points = {}
    for point in run.get('curve') or []:
        if point['AP'] is not None:
            minutes = None if point.get('hours') is None else 60 * point['hours']
            points[point['epoch']] = {'epoch': point['epoch'], 'images': point.get('images'), 'minutes': minutes, 'AP': point['AP']}
    return points


def learning(results: dict) -> Section:
    title = 'Learning curves'
    curves = {series: mean_points(model) for series, model in enumerate(results['models'])}
    drawn = where(results, lambda model: any(_points(run) for run in model['runs']))
    if not drawn:
        return Section('learning', title, 'There are none, because no run was evaluated while it trained.')
    points = [point for series in drawn for run in results['models'][series]['runs'] for point in _points(run).values()]
    in_hours = max(point['minutes'] or 0 for point in points) >= 60
    time = ('minutes', 1 / 60, 'training time (h)') if in_hours else ('minutes', 1.0, 'training time (min)')
    panels = [
        _panel(results, curves, drawn, *axis) for axis in (('epoch', 1.0, 'epochs'), ('images', 1.0, 'images seen in training'), time)
    ]
    of_test = results['data']['evaluated_on'] == 'test'
    images = 'the validation images (elsewhere: on the test images)' if of_test else 'the evaluated images'
    figure = Figure(
        f'AP on {images} during training; thick: mean over the seeds that finished, thin: each seed',
        *(tuple(panels), legend(results, drawn), _numbers(results, curves)),
    )
    reading = (
        'A higher AP after fewer epochs, images or minutes is better, the minutes being those of this machine; '
        'a curve that still rises does not tell where it would end.'
    )
    blocks = (figure, _speed(results, curves), *_predictions(results))
    return Section('learning', title, reading, blocks)


def _panel(results: dict, curves: dict, drawn: list[int], key: str, scale: float, label: str) -> Panel:
    lines, gist = [], []

    def line(series: int, points: Iterable[dict], thin: bool) -> Line:
        known = [point for point in points if point[key] is not None]
        return Line(series, [point[key] * scale for point in known], [point['AP'] for point in known], thin)

    for series in drawn:
        model = results['models'][series]
        lines += [line(series, _points(run).values(), thin=True) for run in model['runs']]
        if curve := curves[series]:
            lines.append(line(series, curve, thin=False))
            best = max(curve, key=lambda point: point['AP'])
            place = '' if best[key] is None else f' at {best[key] * scale:.4g}'
            gist.append(f'{model["name"]}: best mean AP {fixed(best["AP"])}{place}')
    description = '; '.join(gist) or 'No run has finished; only single seeds are drawn.'
    return line_chart(f'learning-{key}', f'AP against {label}', description, lines, label, 'AP (IoU 0.50 to 0.95)', whole_x=key == 'epoch')


def _numbers(results: dict, curves: dict[int, list[dict]]) -> Table:
    epochs = sorted({point['epoch'] for curve in curves.values() for point in curve})
    at = {series: {point['epoch']: point for point in curve} for series, curve in curves.items()}
    images = {point['epoch']: point['images'] for curve in curves.values() for point in curve}
    rows = tuple(
        (integer(epoch), integer(images[epoch]), *(text for series in curves for text in _cells(at[series].get(epoch)))) for epoch in epochs
    )
    columns = ('Epoch', 'Images seen')
    columns += tuple(f'{what}, {model["name"]}' for model in results['models'] for what in ('AP', 'Minutes'))
    step = max(1, -(-len(rows) // ROWS_IN_MARKDOWN))
    return Table('Mean AP ± standard deviation over seeds, and minutes of training', columns, rows, folded=True, step=step)


def _cells(point: dict | None) -> tuple[str, str]:
    if point is None:
        return MISSING, MISSING
    spread = '' if point['std'] is None else f' ± {fixed(point["std"])}'
    return fixed(point['AP']) + spread, fixed(point['minutes'], 1)


def _speed(results: dict, curves: dict[int, list[dict]]) -> Table:
    rows = []
    for series, model in enumerate(results['models']):
        best = max(curves[series], key=lambda point: point['AP'], default=None)
        reached = [(model.get('epochs_to') or {}).get(share) for share in ('50', '90')]
        minutes = {point['epoch']: point['minutes'] for point in curves[series]}
        times = [fixed(minutes.get(epoch), 1) for epoch in reached]
        values = (integer(reached[0]), times[0], integer(reached[1]), times[1])
        rows.append((name_cell(results, series), *values, *((fixed(best['AP']), integer(best['epoch'])) if best else (MISSING, MISSING))))
    columns = ('Model', 'Epochs to 50 %', 'Minutes to 50 %', 'Epochs to 90 %', 'Minutes to 90 %', 'Best mean AP', 'At epoch')
    return Table("First evaluation with 50 % and 90 % of the model's own best mean AP", columns, tuple(rows))


def _predictions(results: dict) -> list[Table | Text]:
    crossovers = results.get('crossovers') or []
    if not crossovers:
        return []
    rows = tuple((*pair_cells(results, entry), integer(entry['epoch']), entry['text']) for entry in crossovers)
    note = 'Where curves would cross is a prediction from curves that end earlier, not a measurement; train longer to know.'
    return [Table('Predicted crossovers (not measured)', ('First model', 'Second model', 'Predicted epoch', 'In words'), rows), Text(note)]
