"""Accuracy by class and by size of the objects."""

from ..blocks import Section, Table, Text
from ..formatting import MISSING, fixed, mean_std
from .models import name_cell, names, where

SIZES = ('AP S', 'AP M', 'AP L')


def classes(results: dict) -> Section:
    measured = where(results, lambda model: model.get('by_class'))
    reading = (
        'A class with few objects has an AP that chance can move far, and "-" means that there was no such object; '
        'this does not tell which classes are taken for each other.'
    )
    listed = results['data']['classes']
    if not measured:
        blocks = [Text('No model has finished, so there is no AP by class.')]
    elif len(listed) == 1:
        blocks = [Text(f'There is one class only, {listed[0]["name"]}: its AP is the AP above.')]
    else:
        blocks = [_by_class(results, measured)]
    rows = []
    for series, model in enumerate(results['models']):
        metrics = model.get('metrics') or {}
        rows.append((name_cell(results, series), *(mean_std(metrics.get(size)) for size in SIZES)))
    caption = 'AP by size of the object: small below 32 x 32 pixels of the image, large from 96 x 96'
    return Section('classes', 'By class and by size', reading, (*blocks, Table(caption, ('Model', *SIZES), tuple(rows))))


def _by_class(results: dict, measured: list[int]) -> Table:
    found = {series: {entry['name']: entry for entry in results['models'][series]['by_class']} for series in measured}
    split = results['data']['evaluated_on']
    rows = []
    for entry in results['data']['classes']:
        figures = [fixed(by_name.get(entry['name'], {}).get(metric)) for metric in ('AP', 'AP50') for by_name in found.values()]
        objects = [str(count) if (count := entry['objects'].get(part)) is not None else MISSING for part in ('train', split)]
        rows.append((entry['name'], *objects, *figures))
    columns = ('Class', 'Objects in train', f'Objects in {split}')
    columns += tuple(f'{metric}, {names(results)[series]}' for metric in ('AP', 'AP50') for series in measured)
    return Table('Means over seeds by class', columns, tuple(rows))
