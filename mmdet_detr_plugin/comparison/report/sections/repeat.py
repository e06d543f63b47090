"""What was run, on what, and how to do it again."""

from collections.abc import Mapping

from ..blocks import BAD, WARNING, Cell, Code, Section, Table
from ..formatting import MISSING, fixed, integer
from .models import name_cell
from .summary import last_line


def repeat(results: dict) -> Section:
    how = results.get('repeat') or {}
    blocks = []
    if how.get('commands'):
        blocks.append(Code('Commands', '\n'.join(how['commands'])))
    blocks += [_data(results), _models(results), _runs(results), *_tracebacks(results)]
    environment = [('commit', how.get('commit') or MISSING), *_flat(how.get('hardware') or {}), *_flat(how.get('versions') or {})]
    blocks.append(Table('Commit, hardware and versions', ('What', 'Value'), tuple(environment)))
    blocks += [Code(f'Resolved config of {model}', text, folded=True) for model, text in (how.get('configs') or {}).items()]
    reading = (
        'The same commands with the same versions, seeds and data train the same models; '
        'times, and on other hardware the last digits of the results, will not be the same.'
    )
    return Section('repeat', 'How to repeat it', reading, tuple(blocks))


def _data(results: dict) -> Table:
    splits = results['data']['splits']
    rows = tuple(
        (name, *(integer(split.get(key)) for key in ('images', 'objects', 'empty_images')), used)
        for name, split in splits.items()
        if split
        for used in ['yes' if name == results['data']['evaluated_on'] else 'no']
    )
    return Table(f'Data: {results["data"]["name"]}', ('Split', 'Images', 'Objects', 'Images without objects', 'Evaluated on'), rows)


def _models(results: dict) -> Table:
    rows = tuple((name_cell(results, series), model['kind'], model['config']) for series, model in enumerate(results['models']))
    return Table('Models', ('Model', 'Detector', 'Config'), rows)


def _runs(results: dict) -> Table:
    tones = {'failed': BAD, 'missing': WARNING}
    rows = []
    for series, model in enumerate(results['models']):
        for run in model['runs']:
            state = Cell(run['state'], tones.get(run['state'], ''))
            figures = ((run.get('metrics') or {}).get('AP'), 3), (run.get('training_seconds'), 0), (run.get('seconds_per_epoch'), 1)
            values = [fixed(value, digits) for value, digits in (*figures, (run.get('peak_memory_mib'), 0))]
            problem = last_line(run['error']) if run.get('error') else MISSING
            rows.append((name_cell(results, series), str(run['seed']), state, *values, problem))
    columns = ('Model', 'Seed', 'State', 'AP', 'Training time (s)', 'Time of an epoch (s)', 'Peak memory (MiB)', 'Error')
    return Table('Runs', columns, tuple(rows))


def _tracebacks(results: dict) -> list[Code]:
    return [
        Code(f'Error of {model["name"]}, seed {run["seed"]}', run['error'], folded=True)
        for model in results['models']
        for run in model['runs']
        if len((run.get('error') or '').strip().splitlines()) > 1
    ]


def _flat(content: Mapping, prefix: str = '') -> list[tuple[str, str]]:
    """Nested settings by dotted names."""
    flat = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f'{prefix}{key}.')
        else:
            flat.append((f'{prefix}{key}', MISSING if value is None else str(value)))
    return flat
