"""``kill -9`` at twenty random moments of one run, also while a checkpoint is being written; it ends as the run that was not killed."""

import math
import os
import random
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from .processes import Command, running
from .test_resuming import assert_same_end, command, train, write_config

KILLS = 20
EPOCHS = 8  # of four iterations and an evaluation
# queries of every kind, in one model
ALL_AIDS = """model = dict(training_aids=dict(
    groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=1),
    denoising=dict(type='mmdet_detr_plugin.DenoisingQueries', num_classes=4, jitter=dict(copies=2)),
))"""
MODELS = {
    'aided DETR': ('configs/shapes/detr-aided_r18-half_1xb4-10e_shapes.py', ALL_AIDS),
    'LocalDETR': ('configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py', ''),
}


class Killer:
    """Chooses moments of a run's whole life: start-up, iterations, evaluation, and, every second time, a file that is half-written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.half_written = []

    def run_and_kill(self, config: Path, work: Path, number: int) -> None:
        """Start or go on, and kill; not later than an epoch that leaves something to do for the kills to come."""
        last_epoch = 2 + number * (EPOCHS - 3) // KILLS
        before = len((work / 'output.txt').read_text()) if (work / 'output.txt').exists() else 0
        delay, file = self.random.uniform(0, 15 if number % 4 == 0 else 3), self.random.randint(1, 3) if number % 2 else None
        with running(command(config, work, '--resume'), work.parent, work / 'output.txt') as training:
            start, writing = time.time(), []
            begin = start if number % 4 == 0 else math.inf  # of the delay: of the process, or of its first iteration
            while True:
                assert training.process.poll() is None, training.output()[-4000:]
                epoch = self._epoch(training, before)
                if begin == math.inf and epoch:
                    begin = time.time()
                before_that, writing = writing, half_written(work, start)
                if file is None:
                    if time.time() - begin > delay or epoch >= last_epoch:
                        break
                else:
                    file -= writing != [] and before_that == []
                    if epoch >= last_epoch:
                        file = min(file, 1)  # the next one
                    if file <= 0 and writing and self._is_caught_writing(training, work, start):
                        break
                time.sleep(0.002)
            os.killpg(training.process.pid, signal.SIGKILL)  # at once, with its workers
            training.process.wait()
        left = half_written(work, start)
        self.half_written += left
        print(f'kill {number}: {time.time() - start:.1f} s after the start, in epoch {epoch}; left: {left}')

    @staticmethod
    def _is_caught_writing(training: Command, work: Path, start: float) -> bool:
        """Halt it and look: a file may have been finished since it was seen, and then the run goes on."""
        os.killpg(training.process.pid, signal.SIGSTOP)
        if half_written(work, start):
            return True
        os.killpg(training.process.pid, signal.SIGCONT)
        return False

    @staticmethod
    def _epoch(training: Command, before: int) -> int:
        found = re.findall(r'Epoch\(train\) +\[(\d+)\]', training.output()[before:])
        return int(found[-1]) if found else 0


def half_written(work: Path, start: float) -> list[str]:
    """Temporary files that have been written to since ``start``, in seconds since 1970; kills before that left others."""
    found = []
    for path in work.glob('*.tmp'):
        with suppress(FileNotFoundError):  # renamed just now
            if path.stat().st_mtime > start:
                found.append(path.name)
    return found


def assert_nothing_is_lost(work: Path) -> None:
    """Whatever has the name of a checkpoint is whole, and the newest one is there."""
    for path in work.glob('*.pth'):
        torch.load(path, weights_only=True)
    pointer = work / 'last_checkpoint'
    if pointer.is_file():
        assert Path(pointer.read_text()).is_file()


@pytest.mark.slow
@pytest.mark.parametrize('model', MODELS)
def test_run_that_is_killed_twenty_times_ends_as_the_straight_one(model, shapes_dir, tmp_path):
    base, more = MODELS[model]
    config = write_config(tmp_path, base, shapes_dir, workers=2, epochs=EPOCHS, more=more)
    train(config, tmp_path / 'straight')
    work, killer = tmp_path / 'killed', Killer(seed=0)
    work.mkdir()
    for number in range(KILLS):
        killer.run_and_kill(config, work, number)
        assert_nothing_is_lost(work)
    assert len([name for name in killer.half_written if name.endswith('.pth.tmp')]) >= 5
    output = train(config, work, '--resume')
    assert re.search(r'Resuming from .*epoch_\d+.pth', output)
    assert_same_end(tmp_path / 'straight', work, EPOCHS)
