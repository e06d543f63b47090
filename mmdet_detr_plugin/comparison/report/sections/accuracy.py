"""Table 1 of the DETR paper for these models, and which differences the data can tell."""

from ...analysis.matches import METRICS
from ..blocks import Figure, Panel, Points, Section, Table, Text
from ..charts import Interval, interval_chart
from ..formatting import fixed, integer, joined, mean_of, mean_std, millions, signed, time_unit
from .models import done, evaluated_images, name_cell, pair_cells


def models_table(results: dict) -> Section:
    models = results['models']
    unit, seconds = time_unit(mean_of(model.get('training_seconds')) for model in models)
    columns = ('Model', 'GFLOPs', 'FPS', 'Latency p50 (ms)', 'Latency p95 (ms)', 'Parameters (M)', *METRICS)
    columns += ('Peak training memory (MiB)', f'Training time ({unit})', 'Seeds')
    rows = []
    for series, model in enumerate(models):
        latency, metrics = model.get('latency') or {}, model.get('metrics') or {}
        row = [name_cell(results, series), fixed(model.get('giga_multiply_adds'), 1)]
        row += [fixed(latency.get(key), 1) for key in ('fps', 'p50_ms', 'p95_ms')]
        row += [millions(model.get('parameters')), *(mean_std(metrics.get(figure)) for figure in METRICS)]
        row += [mean_std(model.get('peak_memory_mib'), 0), mean_std(model.get('training_seconds'), 1, 1 / seconds)]
        rows.append((*row, f'{len(done(model))} of {len(model["runs"])}'))
    reading = (
        'AP figures are means ± standard deviations over the seeds that finished, from 0 to 1, higher is better; GFLOPs count 10^9 '
        'multiply-adds, which do not tell the speed, and the spread over a few seeds does not tell the chance in the data.'
    )
    blocks = (Table('Accuracy, speed and cost of each model', columns, tuple(rows)), *_panoptic(results), *_speed_protocol(results))
    return Section('models', 'Accuracy, speed and cost', reading, blocks)


def _panoptic(results: dict) -> list[Table | Text]:
    """Panoptic quality of models with segments."""
    models = results['models']
    if not any(model.get('panoptic') for model in models):
        return []
    kinds = {'': '', '_th': ' things', '_st': ' stuff'}
    columns = ('Model', *(f'{figure}{kind}' for kind in kinds.values() for figure in ('PQ', 'SQ', 'RQ')))
    rows = []
    for series, model in enumerate(models):
        found = model.get('panoptic') or {}
        rows.append(
            (name_cell(results, series), *(mean_std(found.get(f'{figure}{kind}'), 1) for kind in kinds for figure in ('PQ', 'SQ', 'RQ')))
        )
    reading = (
        'Panoptic quality (PQ) is segmentation quality (SQ, the mean IoU of matched segments) times recognition quality (RQ), in percent, '
        'the mean over the classes that occur. AP figures are those of the boxes of things.'
    )
    return [Table('Panoptic quality of each model', columns, tuple(rows)), Text(reading)]


def _speed_protocol(results: dict) -> list[Text]:
    protocols = {}
    for model in results['models']:
        if latency := model.get('latency'):
            size = ' x '.join(str(side) for side in latency.get('input') or [])
            text = f'{latency.get("rounds")} images, one at a time, of {size} pixels (median height x width), on {latency.get("device")}'
            protocols.setdefault(text, []).append(model['name'])
    if len(protocols) == 1:
        return [Text(f'Speed: {next(iter(protocols))}; p95: 95 % of them were faster.')]
    return [Text(f'Speed of {joined(models)}: {text}.') for text, models in protocols.items()]


def differences(results: dict) -> Section | None:
    pairs = results.get('pairs') or []
    if not pairs:
        if len(results['models']) == 1:
            return None
        return Section('differences', 'Differences', 'No two models have finished runs that could be compared.')
    columns = ('First model', 'Second model', 'Metric', 'First minus second', '95 % from', '95 % to', 'Told apart?')
    rows = tuple(
        (
            *pair_cells(results, pair),
            pair['metric'],
            *(signed(pair[key]) for key in ('difference', 'low', 'high')),
            'yes' if pair['distinguishable'] else 'no',
        )
        for pair in pairs
    )
    panels = [_forest(number, metric, pairs) for number, metric in enumerate(dict.fromkeys(pair['metric'] for pair in pairs))]
    resamples = joined(sorted({integer(pair['resamples']) for pair in pairs}))
    reading = (
        f'The interval says how much the difference depends on which images were drawn ({resamples} paired resamples of '
        f'{evaluated_images(results)}): where it covers 0, the data cannot tell the two apart; it does not say how much another training '
        'would change, for which see the spread over seeds.'
    )
    others = tuple(pair['text'] for pair in pairs if pair['metric'] != 'AP')
    figure = Figure('Differences with their 95 % intervals; filled: the interval leaves out 0', tuple(panel for panel in panels if panel))
    blocks = (Table('Differences between models, paired by image', columns, rows), *([figure] if figure.panels else []))
    return Section('differences', 'Differences', reading, (*blocks, *([Points(others)] if others else [])))


def _forest(number: int, metric: str, pairs: list[dict]) -> Panel | None:
    """The intervals of one metric; None where none is known."""
    chosen = [pair for pair in pairs if pair['metric'] == metric and None not in (pair['difference'], pair['low'], pair['high'])]
    if not chosen:
        return None
    intervals = [
        Interval((pair['a'], f'minus {pair["b"]}'), pair['difference'], pair['low'], pair['high'], pair['distinguishable'])
        for pair in chosen
    ]
    description = '; '.join(
        f'{pair["a"]} minus {pair["b"]}: {signed(pair["difference"])} ({signed(pair["low"])} to {signed(pair["high"])})' for pair in chosen
    )
    title = f'Difference in {metric}'
    return interval_chart(
        f'forest-{number}', title, description, intervals, f'difference in {metric}; right of 0 the first model is better'
    )
