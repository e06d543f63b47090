"""What a benchmark found, as a table, as JSON and as a plot."""

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .timing import median, ratio


@dataclass
class Row:
    """One kind of work.

    Attributes:
        name: for ``--rows``.
        work: for people.
        unit: of ``values``: ms, MiB or s.
        values: measurements of every round, by implementation; ``plugin`` first. Empty where it was not measured.
        target: ratios that the project sets itself, by the implementation they compare with.
        notes: equality that was checked, or why nothing was measured.
    """

    name: str
    work: str
    unit: str = 'ms'
    values: dict[str, list[float]] = field(default_factory=dict)
    target: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """The plugin's by every other's, medians over rounds."""
        ours = self.values.get('plugin', [])
        return {name: ratio(ours, theirs) for name, theirs in self.values.items() if name != 'plugin' and ours}

    def as_dict(self) -> dict:
        medians = {name: median(values) for name, values in self.values.items()}
        return {**asdict(self), 'median': medians, 'ratio': self.ratios()}


def table(rows: list[Row]) -> str:
    """Markdown; one line for each row."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    header = ['work', *names, *(f'plugin / {name}' for name in names if name != 'plugin'), 'target']
    lines = [header, ['---'] * len(header)]
    for row in rows:
        ratios = row.ratios()
        cells = [_number(median(row.values[name]), row.unit) if name in row.values else '-' for name in names]
        cells += [f'{ratios[name]:.2f}' if name in ratios else '-' for name in names if name != 'plugin']
        target = ', '.join(f'{name} {value:.2f}{" missed" if ratios.get(name, 0) > value else ""}' for name, value in row.target.items())
        lines.append([row.work if row.values else f'{row.work}: not measured', *cells, target])
    notes = [f'- {row.name}: {note}' for row in rows for note in row.notes]
    return '\n'.join(['| ' + ' | '.join(line) + ' |' for line in lines] + [''] * bool(notes) + notes)


def _number(value: float, unit: str) -> str:
    return f'{value:.3g} {unit}' if value < 100 else f'{value:.0f} {unit}'


def machine(device: str) -> dict:
    """What the figures depend on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    processor = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else processor,
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        python=platform.python_version(),
        **{name: _version(name) for name in ('torch', 'mmcv', 'mmdet', 'mmengine', 'transformers', 'scipy')},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'not installed'
