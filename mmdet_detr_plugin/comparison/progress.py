"""Where a comparison stands: one line for each run on a terminal, one line a minute elsewhere."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from .execution import Run


class ProgressDisplay:
    """Shows all runs with the time left; use as a context.

    Args:
        runs: all, also those that are done.
        jobs: how many go on at a time.
    """

    def __init__(self, runs: Sequence[Run], jobs: int) -> None:
        self.runs, self.jobs = runs, jobs
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else None
        self.starts: dict[int, tuple[float, float]] = {}  # run -> time and progress when it was first seen going on
        self.durations: dict[int, float] = {}  # run -> seconds of a whole training, as far as is known
        self.said = 0.0

    def __enter__(self) -> 'ProgressDisplay':
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *exc) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, going: Sequence[Run]) -> None:
        """Look at the runs and show them."""
        now = time.monotonic()
        progress = {id(run): run.progress() for run in self.runs}
        for run in going:
            begin, start = self.starts.setdefault(id(run), (now, progress[id(run)]))
            if progress[id(run)] > start and not run.is_trained:
                self.durations[id(run)] = (now - begin) / (progress[id(run)] - start)
        left = self.seconds_left(progress)
        if self.live:
            self.live.update(self._table(progress, going, left))
        elif now - self.said >= 60:
            self.said = now
            states = [f'{run.name} {progress[id(run)]:.0%}' for run in going]
            done = sum(run.is_done for run in self.runs)
            print(f'{done} of {len(self.runs)} runs done; {", ".join(states)}; {clock(left)} left', file=sys.stderr, flush=True)

    def seconds_left(self, progress: dict[int, float]) -> float | None:
        """For all runs; those that have not started take as long as others of their model, or as others at all."""
        if not self.durations:
            return None
        mean = sum(self.durations.values()) / len(self.durations)
        by_model: dict[str, list[float]] = {}
        for run in self.runs:
            if id(run) in self.durations:
                by_model.setdefault(run.model, []).append(self.durations[id(run)])
        total = 0.0
        for run in self.runs:
            known = by_model.get(run.model, [mean])
            total += (1 - progress[id(run)]) * self.durations.get(id(run), sum(known) / len(known))
        return total / self.jobs

    def _table(self, progress: dict[int, float], going: Sequence[Run], left: float | None) -> Table:
        table = Table(box=None, padding=(0, 1), title=f'{clock(left)} left', title_justify='left')
        for run in self.runs:
            state = 'done' if run.is_done else 'failed' if run.read('failed') else 'waiting'
            if run in going:
                state = 'evaluating' if run.is_trained else 'training'
            table.add_row(run.model, f'seed {run.seed}', ProgressBar(1.0, progress[id(run)], width=30), f'{progress[id(run)]:4.0%}', state)
        return table


def clock(seconds: float | None) -> str:
    """12:34 or 1:02:03; a dash where it is not known."""
    if seconds is None:
        return '-'
    hours, rest = divmod(round(seconds), 3600)
    return f'{hours}:{rest // 60:02d}:{rest % 60:02d}' if hours else f'{rest // 60}:{rest % 60:02d}'
