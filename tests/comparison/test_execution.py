"""Trainings as processes: all are run, failures stay alone, and an interrupted comparison goes on where it was."""

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmdet_detr_plugin.comparison.execution import Launch, Run, execute, only_one
from mmdet_detr_plugin.comparison.progress import ProgressDisplay, clock

from ..conftest import ROOT


@dataclass
class FakeLaunch(Launch):
    """Python snippets instead of trainings; ``{folder}`` is the run's folder."""

    training: str = 'pass'
    evaluation: str = "import pathlib; pathlib.Path(r'{folder}/evaluation.json').write_text('{{}}')"

    def training_command(self, run: Run) -> list[str]:
        return [sys.executable, '-c', self.training.format(folder=run.folder, seed=run.seed)]

    def evaluation_command(self, run: Run) -> list[str]:
        return [sys.executable, '-c', self.evaluation.format(folder=run.folder)]


def make_runs(folder: Path, seeds=(0, 1, 2)) -> list[Run]:
    return [Run('model', seed, folder / 'config.py', folder / f'seed{seed}', epochs=4) for seed in seeds]


def run_all(runs, launch) -> list[Run]:
    return execute(runs, launch, show=lambda going: None, poll_seconds=0.02)


def test_every_run_is_trained_and_evaluated_once(tmp_path):
    runs = make_runs(tmp_path)
    launch = FakeLaunch(training="open(r'{folder}/count', 'a').write('x')")
    assert run_all(runs, launch) == [] and all(run.is_done and run.is_trained for run in runs)
    assert run_all(runs, launch) == []
    assert [(run.folder / 'count').read_text() for run in runs] == ['x'] * 3
    assert runs[0].read('trained')['peak_process_mib'] > 1


def test_peak_memory_is_that_of_a_process_that_trained(tmp_path):
    """Killed in its last validation, a training has nothing left to do when it is started again."""
    (run,) = make_runs(tmp_path, seeds=(0,))
    run.folder.mkdir()
    run.log.write_text('Epoch(train)  [4][20/20]  lr: 1.0000e-04\n')
    assert run.progress() == 1 and run_all([run], FakeLaunch()) == [] and run.read('trained') == dict(peak_process_mib=None)


def test_failed_run_is_named_and_does_not_stop_the_others(tmp_path):
    runs = make_runs(tmp_path)
    launch = FakeLaunch(training="print('about to fail'); assert {seed} != 1, 'planted'")
    assert run_all(runs, launch) == [runs[1]]
    assert [run.is_done for run in runs] == [True, False, True]
    failure = runs[1].read('failed')
    assert (failure['step'], failure['reason']) == ('training', 'exit status 1')
    assert 'planted' in failure['log']
    assert run_all(runs, FakeLaunch()) == [] and runs[1].is_done and runs[1].read('failed') == {}


def test_failed_evaluation_keeps_the_training(tmp_path):
    runs = make_runs(tmp_path, seeds=[0])
    counting = "open(r'{folder}/count', 'a').write('x')"
    assert run_all(runs, FakeLaunch(training=counting, evaluation='raise SystemExit(3)')) == runs
    assert runs[0].read('failed')['step'] == 'evaluation' and runs[0].is_trained and not runs[0].is_done
    assert run_all(runs, FakeLaunch(training=counting, evaluation='pass')) == runs  # ends well, but has written nothing
    assert run_all(runs, FakeLaunch(training=counting)) == []
    assert (runs[0].folder / 'count').read_text() == 'x'


def test_killed_process_is_reported_with_its_signal(tmp_path):
    runs = make_runs(tmp_path, seeds=[0])
    run_all(runs, FakeLaunch(training='import os; os.kill(os.getpid(), 9)'))
    assert runs[0].read('failed')['reason'] == 'signal 9'


def test_jobs_run_at_a_time(tmp_path):
    runs = make_runs(tmp_path, seeds=range(4))
    most = []
    launch = FakeLaunch(training='import time; time.sleep(0.3)', jobs=2)
    execute(runs, launch, show=lambda going: most.append(len(going)), poll_seconds=0.02)
    assert max(most) == 2 and all(run.is_done for run in runs)


def test_interrupt_ends_the_processes_with_their_workers(tmp_path):
    """The command gets SIGINT; neither the training nor its child may live on."""
    script = textwrap.dedent(f"""
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.comparison.test_execution import FakeLaunch, make_runs, run_all
        child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)  # {tmp_path}'])"
        run_all(make_runs(Path({str(tmp_path)!r}), seeds=[0]), FakeLaunch(training=child))
    """)
    process = subprocess.Popen([sys.executable, '-c', script], stderr=subprocess.PIPE)
    marker = f'time.sleep(60)  # {tmp_path}'  # another one in every test run
    wait_until(lambda: living(marker) >= 2)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    wait_until(lambda: living(marker) == 0, seconds=20)  # they would end by themselves after 60
    assert b'KeyboardInterrupt' in process.stderr.read()


def test_training_that_outlived_a_killed_comparison_is_ended_before_the_next(tmp_path):
    run = make_runs(tmp_path, seeds=[0])[0]
    leftover = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '--work-dir', str(run.training)])
    other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '--work-dir', f'{run.training}-other'])
    try:
        assert run_all([run], FakeLaunch()) == []
        assert leftover.wait(10) == -signal.SIGKILL and other.poll() is None
    finally:
        for process in (leftover, other):
            process.kill()
            process.wait()


def living(marker: str) -> int:
    """Processes whose command ends in the marker: the sleeping child itself and the training that waits for it."""
    found = 0
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            found += marker in path.read_bytes().decode(errors='replace').split('make_runs')[0]
        except OSError:
            continue
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.05)


def test_two_comparisons_cannot_share_a_folder(tmp_path):
    refused = pytest.raises(ValueError, match='another comparison is running in .*choose another --work-dir')
    with only_one(tmp_path), refused, only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_progress_is_read_from_the_log(tmp_path):
    run = make_runs(tmp_path)[0]
    assert run.progress() == 0.0
    run.folder.mkdir()
    run.log.write_text('Epoch(train)  [2][ 50/100]  lr: 1\nEpoch(val) [1][10/10]\nEpoch(train)  [3][ 50/100]  lr')
    assert run.progress() == pytest.approx(2.5 / 4)
    run.log.write_text('Iter(train) [ 300/1000]  lr: 1')
    assert run.progress() == pytest.approx(0.3)


def test_time_left_counts_every_run_as_its_models_others(tmp_path):
    runs = make_runs(tmp_path)
    display = ProgressDisplay(runs, jobs=1)
    progress = {id(run): 0.0 for run in runs}
    assert display.seconds_left(progress) is None
    display.durations[id(runs[0])] = 100.0
    progress[id(runs[0])] = 0.25
    assert display.seconds_left(progress) == pytest.approx(75 + 100 + 100)
    assert (clock(None), clock(75), clock(3675)) == ('-', '1:15', '1:01:15')


def test_launchers_start_processes_as_asked(tmp_path, monkeypatch):
    run = make_runs(tmp_path)[0]
    alone = Launch().training_command(run)
    assert '--launcher' not in alone and 'randomness.seed=0' in alone
    torchrun = Launch('pytorch', processes=2).training_command(run)
    assert '--nproc_per_node=2' in torchrun and torchrun[torchrun.index('--launcher') + 1] == 'pytorch'
    monkeypatch.setenv('SRUN_ARGS', '-p gpu --gres=gpu:4')
    slurm = Launch('slurm', processes=4).training_command(run)
    assert slurm[:6] == ['srun', '--ntasks=4', '--kill-on-bad-exit=1', '-p', 'gpu', '--gres=gpu:4']


def test_a_training_resumes_only_where_there_is_something_to_resume(tmp_path):
    """With ``--resume`` mmdet's train.py drops the config's load_from: fine-tuned models would be compared from scratch."""
    run = make_runs(tmp_path)[0]
    assert '--resume' not in Launch().training_command(run)
    run.training.mkdir(parents=True)
    (run.training / 'last_checkpoint').write_text('epoch_1.pth')
    assert '--resume' in Launch().training_command(run)


def test_gpus_are_divided_among_jobs(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6,7')
    launch = Launch('pytorch', processes=2, jobs=2)
    assert [launch.environment(slot)['CUDA_VISIBLE_DEVICES'] for slot in (0, 1)] == ['4,5', '6,7']
    assert Launch().environment(0)['CUDA_VISIBLE_DEVICES'] == '4,5,6,7'


def test_cores_are_divided_among_jobs_without_gpus(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(8)))
    assert Launch(jobs=2).environment(1)['OMP_NUM_THREADS'] == '4'
    assert 'OMP_NUM_THREADS' not in Launch().environment(0)
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert Launch(jobs=2).environment(0)['OMP_NUM_THREADS'] == '3'


@pytest.mark.parametrize(
    'launch, message',
    [
        (Launch('mpi'), 'one of none, pytorch, slurm'),
        (Launch(processes=2), '2 processes need --launcher'),
        (Launch(jobs=0), 'at least 1'),
    ],
)
def test_impossible_launches_are_refused(launch, message):
    with pytest.raises(ValueError, match=message):
        launch.check()
