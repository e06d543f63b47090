"""What several chapters ask of the models."""

from collections.abc import Callable, Sequence

from ..blocks import Cell


def names(results: dict) -> list[str]:
    return [model['name'] for model in results['models']]


def name_cell(results: dict, series: int) -> Cell:
    """A row's head: the model's mark and name."""
    return Cell(results['models'][series]['name'], series=series)


def legend(results: dict, series: Sequence[int]) -> tuple[tuple[int, str], ...]:
    return tuple((number, results['models'][number]['name']) for number in series)


def where(results: dict, has: Callable[[dict], object]) -> list[int]:
    """Series numbers of the models that have something."""
    return [series for series, model in enumerate(results['models']) if has(model)]


def done(model: dict) -> list[dict]:
    return [run for run in model['runs'] if run['state'] == 'done']


def evaluated_images(results: dict) -> str:
    """Such as ``40 images of val``."""
    split = results['data']['evaluated_on']
    count = (results['data']['splits'].get(split) or {}).get('images')
    return f'{split} images' if count is None else f'{count} images of {split}'


def pair_cells(results: dict, pair: dict) -> tuple[Cell, Cell]:
    """The two models of a comparison."""
    series = {model['name']: number for number, model in enumerate(results['models'])}
    return Cell(pair['a'], series=series.get(pair['a'])), Cell(pair['b'], series=series.get(pair['b']))
