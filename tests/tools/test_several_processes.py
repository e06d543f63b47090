"""Two processes on CPUs through mmdet's unmodified command lines: under torchrun, as two machines, and under Slurm."""

import json
import os
import re
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from ..conftest import ROOT
from .processes import running
from .test_mmdet_tools import CONFIGS, MMDET_TOOLS, MODELS
from .test_resuming import assert_equal

PLANTED = """
import os, signal, time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS

@HOOKS.register_module()
class PlantedDeath(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.rank, runner.epoch, batch_idx) == (1, 1, 1):
            print('planted death at', time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

@TRANSFORMS.register_module()
class PlantedFault:
    count = 0

    def __call__(self, results):
        self.count += 1
        if os.environ['RANK'] == '1' and self.count == 3:
            print('planted death at', time.time(), flush=True)
            raise RuntimeError('planted: this sample cannot be read')
        return results
"""
PLANTED_CONFIGS = dict(
    kill="custom_hooks = _base_.custom_hooks + [dict(type='mmengine.PlantedDeath')]",
    fault="""pipeline = _base_.train_dataloader.dataset.pipeline + [dict(type='mmengine.PlantedFault')]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=pipeline))""",
)


@pytest.fixture(scope='module', params=MODELS)
def config(request, shapes_dir, tmp_path_factory) -> Path:
    """Two epochs of four images a step over all processes, evaluation one by one on an odd number of images, with the CPU add-on."""
    folder = tmp_path_factory.mktemp(f'several-{request.param}')
    path = folder / 'config.py'
    path.write_text(f"""_base_ = [{str(ROOT / CONFIGS[request.param])!r}, {str(ROOT / 'configs' / '_base_' / 'cpu_processes.py')!r}]
data_root = {str(shapes_dir) + '/'!r}
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, indices=7))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/test.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=1)
custom_hooks = _base_.custom_hooks + [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, priority=49)]
""")
    (folder / 'planted.py').write_text(PLANTED)
    return path


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def environment(folder: Path, **variables) -> dict:
    """Without what an outer launcher may have set; one thread a process."""
    prefixes = ('SLURM_', 'MASTER_', 'OMPI_', 'TORCHELASTIC_', 'RANK', 'WORLD_SIZE', 'LOCAL_', 'GROUP_', 'ROLE_')
    outer = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    path = os.pathsep.join((str(folder), os.environ['PYTHONPATH']))
    fixed = dict(PYTHONPATH=path, OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    return {**outer, **fixed, **{key: str(value) for key, value in variables.items()}}


def torchrun(*options) -> list:
    return [sys.executable, '-m', 'torch.distributed.run', *options]


def start(command: list, config: Path, name: str, cwd: Path | None = None, **variables):
    """A running command of this test, its output under ``name``."""
    return running(command, cwd or config.parent, config.parent / f'{name}.txt', environment(config.parent, **variables))


def run(command: list, config: Path, name: str, success: bool = True) -> str:
    with start(command, config, name) as started:
        return started.finish(success)


def train(config: Path, work: str, launcher: str = 'pytorch') -> list:
    return [MMDET_TOOLS / 'train.py', config, '--work-dir', config.parent / work, '--launcher', launcher]


@pytest.fixture(scope='module')
def trained(config) -> tuple[Path, str]:
    """Two processes under torchrun: the config and what they printed."""
    return config, run([*torchrun('--standalone', '--nproc_per_node=2'), *train(config, 'torchrun')], config, 'torchrun')


# for what does not depend on the model
with_detr = pytest.mark.parametrize('config', ['detr'], indirect=True)


@pytest.fixture(scope='module')
def trained_config(trained) -> Path:
    return trained[0]


def test_two_processes_train(trained):
    config, output = trained
    assert re.search(r'Epoch\(train\) +\[2\]\[4/4\]', output)  # 16 images, 2 processes of batch size 2
    assert 'Distributed training: True' in output and 'GPU number: 2' in output
    checkpoint = torch.load(config.parent / 'torchrun' / 'epoch_2.pth', weights_only=True)
    assert not any(key.startswith('module.') for key in checkpoint['state_dict'])


def test_four_processes_evaluate_to_the_detections_and_metric_of_one(trained):
    """As the two that trained did."""
    config, training_output = trained
    results, metrics = [], []
    for work, prefix in (('one', [sys.executable]), ('four', torchrun('--standalone', '--nproc_per_node=4'))):
        work = config.parent / f'test-{work}'
        command = [*prefix, MMDET_TOOLS / 'test.py', config, config.parent / 'torchrun' / 'epoch_2.pth', '--work-dir', work]
        command += ['--cfg-options', f'test_evaluator.outfile_prefix={work / "detections"}']
        command += ['--launcher', 'none' if len(prefix) == 1 else 'pytorch']
        metrics.append(re.findall(r'coco/bbox_mAP\w*: -?[\d.]+', run(command, config, work.name)))
        results.append(json.loads((work / 'detections.bbox.json').read_text()))
    assert metrics[0] == metrics[1] and len(metrics[0]) == 6
    assert metrics[0] == re.findall(r'coco/bbox_mAP\w*: -?[\d.]+', training_output)[-6:]
    # nothing is counted twice, though with seven images one process sees an image again
    assert results[0] == results[1] and len({item['image_id'] for item in results[0]}) <= 7


def die(config: Path, way: str) -> str:
    """Rank 1 dies after some iterations; all that the job printed until it ended."""
    planted = config.with_name(f'{way}.py')
    planted.write_text(f"_base_ = 'config.py'\ncustom_imports = dict(imports=['planted'])\n{PLANTED_CONFIGS[way]}\n")
    command = [*torchrun('--standalone', '--nproc_per_node=2'), *train(planted, way)]
    output = run(command, config, way, success=False)
    died = float(re.search(r'planted death at ([\d.]+)', output)[1])
    assert time.time() - died < 60
    return output


@with_detr
def test_processes_end_together_with_the_reason_when_a_sample_of_one_fails(trained_config):
    output = die(trained_config, 'fault')
    assert 'RuntimeError: planted: this sample cannot be read' in output
    assert re.search(r'rank +: 1 .*exitcode +: 1 ', ' '.join(output.split())), output[-3000:]
    assert not (trained_config.parent / 'fault' / 'last_checkpoint').exists()


@with_detr
def test_killed_process_ends_all_and_the_resumed_job_ends_as_the_straight_one(trained_config):
    output = die(trained_config, 'kill')
    assert re.search(r'rank +: 1 .*exitcode +: -9 .*Signal 9 \(SIGKILL\) received', ' '.join(output.split())), output[-3000:]
    command = [*torchrun('--standalone', '--nproc_per_node=2'), *train(trained_config, 'kill'), '--resume']
    assert 'resumed epoch: 1, iter: 4' in run(command, trained_config, 'kill-resumed')
    assert_same_weights(trained_config.parent / 'torchrun', trained_config.parent / 'kill')


def two_machines(config: Path, name: str, *options, success: bool = True) -> list[str]:
    """What two machines print that share no disk: each has a working directory and a work_dir of its own."""
    port = free_port()
    with ExitStack() as stack:
        machines = []
        for rank in range(2):
            folder = config.parent / f'machine-{rank}'
            folder.mkdir(exist_ok=True)
            launcher = torchrun(
                '--nnodes=2', f'--node_rank={rank}', '--nproc_per_node=1', '--master_addr=127.0.0.1', f'--master_port={port}'
            )
            command = [*launcher, *train(config, f'machine-{rank}'), *options]
            machines.append(stack.enter_context(start(command, config, f'{name}-{rank}', cwd=folder)))
        return [machine.finish(success) for machine in machines]


@with_detr
def test_two_machines_of_torchrun_train_as_two_processes_of_one(trained_config):
    config = trained_config
    output = two_machines(config, 'machine')[0]
    assert re.findall(r'coco/bbox_mAP: -?[\d.]+', output) == re.findall(
        r'coco/bbox_mAP: -?[\d.]+', (config.parent / 'torchrun.txt').read_text()
    )
    assert not list((config.parent / 'machine-1').glob('*.pth'))  # the first machine alone writes checkpoints
    assert_same_weights(config.parent / 'torchrun', config.parent / 'machine-0')
    for output in two_machines(config, 'resumed', '--resume', success=False):
        message = r'ValueError: the processes start from different checkpoints.*: \[\(2, 8\), \(0, 0\)\].*a disk that all machines share'
        assert re.search(message, output)


@with_detr
def test_two_slurm_tasks_train_as_two_processes_of_torchrun(trained_config):
    config = trained_config
    scontrol = config.parent / 'bin' / 'scontrol'
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\nelsewhere\\n"\n')
    scontrol.chmod(0o755)
    common = dict(
        PATH=f'{scontrol.parent}:{os.environ["PATH"]}', SLURM_NTASKS=2, SLURM_NODELIST='node[1-2]', SLURM_LOCALID=0, MASTER_PORT=free_port()
    )
    command = [sys.executable, *train(config, 'slurm', 'slurm')]
    with (
        start(command, config, 'slurm-0', SLURM_PROCID=0, **common) as first,
        start(command, config, 'slurm-1', SLURM_PROCID=1, **common) as second,
    ):
        first.finish()
        second.finish()
    assert_same_weights(config.parent / 'torchrun', config.parent / 'slurm')


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (torch.load(work / 'epoch_2.pth', weights_only=True)['state_dict'] for work in (first, second))
    assert_equal(a, b, 'state_dict')


@with_detr
@pytest.mark.parametrize(
    'launcher, variables, message',
    [
        ('pytorch', {}, r"launcher 'pytorch' sets RANK, WORLD_SIZE, LOCAL_RANK, but .* is missing; start the processes with torchrun"),
        ('slurm', {}, r"launcher 'slurm' sets SLURM_PROCID.* is missing; start the processes with srun --ntasks=N"),
        (
            'slurm',
            dict(SLURM_PROCID=0, SLURM_NTASKS=1, SLURM_LOCALID=0, SLURM_NODELIST='node7', PATH='/nowhere'),
            r"the first machine is not known: MASTER_ADDR is not set, and 'scontrol show hostnames node7' failed .*set MASTER_ADDR",
        ),
    ],
)
def test_what_a_launcher_has_not_set_is_named(trained_config, launcher, variables, message):
    with start([sys.executable, *train(trained_config, 'none', launcher)], trained_config, f'none-{launcher}', **variables) as started:
        assert re.search('ValueError: ' + message, started.finish(success=False))
