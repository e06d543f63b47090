"""Facts about a training run, read from what mmengine left in its work directory."""

import json
import statistics
from pathlib import Path


def seconds_per_epoch(work_dir: Path) -> float:
    """Median time of an iteration times the iterations of an epoch, from the run's ``scalars.json`` files.

    Raises:
        ValueError: when the run has logged no training iteration.
    """
    training = [record for record in _records(work_dir) if 'time' in record and 'iter' in record]
    if not training:
        raise ValueError(f'{work_dir} has no log of training iterations (looked for */vis_data/scalars.json)')
    last = max(training, key=lambda record: record['iter'])
    # The logger of these configs never ignores an epoch's last iterations, so iterations / epochs is exact at the end of an epoch.
    # A log by iterations knows no epochs: the whole training counts as one.
    return statistics.median(record['time'] for record in training) * last['iter'] / last.get('epoch', 1)


def last_scalars(work_dir: Path) -> dict:
    """What the last evaluation of a run has logged.

    Raises:
        ValueError: when there was none.
    """
    evaluations = [record for record in _records(work_dir) if any(key.startswith('coco/') for key in record)]
    if not evaluations:
        raise ValueError(f'{work_dir} has no log of an evaluation (looked for */vis_data/scalars.json)')
    return evaluations[-1]


def _records(work_dir: Path) -> list[dict]:
    lines = (line for path in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in path.read_text().splitlines())
    return [record for line in lines if (record := _parsed(line))]


def _parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:  # half a line, left by an interruption
        return None


def last_checkpoint(work_dir: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        FileNotFoundError: when there is none.
    """
    pointer = work_dir / 'last_checkpoint'
    if not pointer.is_file():
        raise FileNotFoundError(f'{work_dir} has no last_checkpoint; has the training finished an epoch?')
    # The pointer holds the path at training time; the folder may have moved since.
    return work_dir / Path(pointer.read_text().strip()).name


def resume_option(work_dir: Path) -> list[str]:
    """Of mmdet's ``tools/train.py``, where there is something to resume: it makes it drop the config's ``load_from``."""
    return ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []


def evaluations(work_dir: Path) -> list[tuple[int, float]]:
    """(epoch, AP) of every evaluation during training; the last one of an epoch."""
    return sorted({record['step']: record['coco/bbox_mAP'] for record in _records(work_dir) if 'coco/bbox_mAP' in record}.items())


def peak_memory_mib(work_dir: Path) -> float | None:
    """Most GPU memory that a training step has held; None for a training without a GPU."""
    held = [record['memory'] for record in _records(work_dir) if record.get('memory')]
    return float(max(held)) if held else None
