"""The trainings of a comparison as processes: several at a time, continued after an interruption, none lost when another fails."""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config_files import mmdet_train_script
from ..files import write_json
from .run_records import resume_option

ITERATION = re.compile(rb'(?:Epoch\(train\) +\[(\d+)\]\[ *(\d+)/(\d+)\]|Iter\(train\) +\[ *(\d+)/(\d+)\])')
LAUNCHERS = ('none', 'pytorch', 'slurm')


@dataclass
class Run:
    """One training with its evaluation.

    Attributes:
        model: name.
        seed: of the run.
        config: file.
        folder: of everything the run writes; absolute.
        epochs: None for a training by iterations.
    """

    model: str
    seed: int
    config: Path
    folder: Path
    epochs: int | None

    @property
    def name(self) -> str:
        return f'{self.model}, seed {self.seed}'

    @property
    def training(self) -> Path:
        """mmengine's work_dir."""
        return self.folder / 'training'

    @property
    def log(self) -> Path:
        return self.folder / 'log.txt'

    @property
    def is_trained(self) -> bool:
        return (self.folder / 'trained.json').is_file()

    @property
    def is_done(self) -> bool:
        return (self.folder / 'evaluation.json').is_file()

    def read(self, name: str) -> dict:
        """What ``trained``, ``evaluation`` or ``failed`` holds; empty where it is not there."""
        path = self.folder / f'{name}.json'
        return json.loads(path.read_text()) if path.is_file() else {}

    def progress(self) -> float:
        """Share of the training that the log shows, from 0 to 1."""
        if self.is_trained:
            return 1.0
        try:
            with open(self.log, 'rb') as file:
                file.seek(max(0, os.path.getsize(self.log) - 20_000))
                found = ITERATION.findall(file.read())
        except FileNotFoundError:
            return 0.0
        if not found:
            return 0.0
        epoch, iteration, length, done, total = (int(value or 0) for value in found[-1])
        return done / total if total else (epoch - 1 + iteration / length) / (self.epochs or epoch)


@dataclass
class Launch:
    """How a training is started.

    Attributes:
        launcher: one of ``LAUNCHERS``.
        processes: of one training.
        jobs: trainings at a time.
    """

    launcher: str = 'none'
    processes: int = 1
    jobs: int = 1

    def training_command(self, run: Run) -> list[str]:
        program = [sys.executable, '-W', 'ignore']
        if self.launcher == 'pytorch':
            program += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={self.processes}']
        elif self.launcher == 'slurm':
            extra = shlex.split(os.environ.get('SRUN_ARGS', ''))
            program = ['srun', f'--ntasks={self.processes}', '--kill-on-bad-exit=1', *extra, *program]
        options = {'randomness.seed': run.seed}
        if self.launcher != 'none' and not torch.cuda.is_available():
            options['runner_type'] = 'mmdet_detr_plugin.CPURunner'
        command = [*program, str(mmdet_train_script()), str(run.config), '--work-dir', str(run.training), '--auto-scale-lr']
        command += resume_option(run.training)
        command += ['--launcher', self.launcher] if self.launcher != 'none' else []
        return [*command, '--cfg-options', *(f'{key}={value}' for key, value in options.items())]

    def evaluation_command(self, run: Run) -> list[str]:
        return [sys.executable, '-W', 'ignore', '-m', 'mmdet_detr_plugin.comparison.evaluate', str(run.config), str(run.folder)]

    def environment(self, slot: int) -> dict[str, str]:
        """GPUs and threads of one of the jobs that run at a time."""
        environment = dict(os.environ)
        if self.jobs > 1 and self.launcher != 'slurm':
            visible = os.environ.get('CUDA_VISIBLE_DEVICES')
            gpus = visible.split(',') if visible else [str(index) for index in range(torch.cuda.device_count())]
            own = gpus[slot * self.processes : (slot + 1) * self.processes]
            if own:
                environment['CUDA_VISIBLE_DEVICES'] = ','.join(own)
            else:  # else every job takes all cores
                environment.setdefault('OMP_NUM_THREADS', str(max(1, len(os.sched_getaffinity(0)) // (self.jobs * self.processes))))
        return environment

    def check(self) -> None:
        """Raises:
        ValueError: for settings that cannot be started.
        """
        if self.launcher not in LAUNCHERS:
            raise ValueError(f'the launcher must be one of {", ".join(LAUNCHERS)}, got {self.launcher!r}')
        if self.processes < 1 or self.jobs < 1:
            raise ValueError(f'processes and jobs must be at least 1, got {self.processes} and {self.jobs}')
        if self.launcher == 'none' and self.processes > 1:
            raise ValueError(f'{self.processes} processes need --launcher pytorch or slurm')
        gpus = torch.cuda.device_count()
        if self.launcher != 'slurm' and gpus and self.jobs * self.processes > gpus:
            raise ValueError(f'{self.jobs} jobs of {self.processes} processes need {self.jobs * self.processes} GPUs, there are {gpus}')


@dataclass
class _Started:
    run: Run
    had_ended: bool  # the training, before this process: its peak of memory then tells nothing
    process: subprocess.Popen
    slot: int
    step: str


@contextmanager
def only_one(work_dir: Path) -> Iterator[None]:
    """Two commands must not train into one folder.

    Raises:
        ValueError: when another process works in the folder.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f'another comparison is running in {work_dir}; wait for it, or choose another --work-dir') from error
        yield


def execute(runs: Sequence[Run], launch: Launch, show: Callable[[Sequence[Run]], None], poll_seconds: float = 0.5) -> list[Run]:
    """Train and evaluate what is not done yet.

    Args:
        show: called again and again with the runs that are going on.

    Returns:
        The runs that failed; each has ``failed.json`` with the command, its exit status and the end of its output.
    """
    waiting = [run for run in runs if not run.is_done]
    going: list[_Started] = []
    failed = []
    try:
        while waiting or going:
            free = sorted(set(range(launch.jobs)) - {started.slot for started in going})
            while waiting and free:
                run = waiting.pop(0)
                (run.folder / 'failed.json').unlink(missing_ok=True)
                going.append(_start(run, launch, free.pop(0)))
            show([started.run for started in going])
            time.sleep(poll_seconds)
            for started in list(going):
                status, peak = _status(started.process)
                if status is None:
                    continue
                going.remove(started)
                if status:
                    _note_failure(started, status)
                    failed.append(started.run)
                    continue
                if started.step == 'training':
                    write_json(started.run.folder / 'trained.json', dict(peak_process_mib=None if started.had_ended else peak))
                    going.append(_start(started.run, launch, started.slot))
                elif not started.run.is_done:
                    _note_failure(started, status)
                    failed.append(started.run)
    finally:
        for started in going:  # interrupted: the next call goes on from the last completed epoch
            _stop(started.process)
    return failed


def _start(run: Run, launch: Launch, slot: int) -> _Started:
    run.folder.mkdir(parents=True, exist_ok=True)
    _end_leftovers(run)
    had_ended = run.progress() >= 1
    step = 'evaluation' if run.is_trained else 'training'
    command = launch.evaluation_command(run) if run.is_trained else launch.training_command(run)
    with open(run.log, 'ab') as log:
        log.write(f'\n$ {shlex.join(command)}\n'.encode())
        log.flush()
        # a process group of its own, so that its workers end with it
        process = subprocess.Popen(command, stdout=log, stderr=log, env=launch.environment(slot), start_new_session=True)
    return _Started(run, had_ended, process, slot, step)


def _end_leftovers(run: Run) -> None:
    """A comparison that was killed itself could not end its trainings; one that still writes into the run's folder is ended now."""
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            arguments = path.read_bytes().split(b'\0')
            if {str(run.training).encode(), str(run.folder).encode()} & set(arguments):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):  # it has ended, or belongs to someone else
            continue


def _status(process: subprocess.Popen) -> tuple[int | None, float]:
    """Exit status, None while it runs; and the peak memory of it and its children in MiB."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None, 0.0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / 1024


def _stop(process: subprocess.Popen, patience: float = 10.0) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _note_failure(started: _Started, status: int) -> None:
    log = started.run.log.read_bytes()[-4000:].decode(errors='replace')
    reason = f'signal {-status}' if status < 0 else f'exit status {status}'
    write_json(started.run.folder / 'failed.json', dict(step=started.step, reason=reason, log=log))
