"""Several processes without a GPU."""

import os
import subprocess
from datetime import timedelta

import torch
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner
from torch import distributed, nn

from ..registry import RUNNERS

# where a launcher writes rank, number of processes, and rank on the machine
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
)

STARTERS = dict(pytorch='torchrun --nproc_per_node=N', slurm='srun --ntasks=N', mpi='mpirun -n N')


@RUNNERS.register_module()
class CPURunner(Runner):
    """mmengine's ``Runner`` with a gloo process group, for developing and testing multi-process behaviour on machines without a GPU.

    mmengine 0.10.7 calls ``torch.cuda.set_device`` in every launcher and gives ``DistributedDataParallel`` a device id; both fail on CPUs.
    Synchronised batch norm, which CPUs lack, becomes batch norm. With one process it is mmengine's runner.

    Raises:
        ValueError: with a launcher, when a GPU is visible, or a variable of the launcher is missing.
    """

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not is_distributed():  # mmengine keeps a group that is there
            _init_gloo(self._launcher, **env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and not is_model_wrapper(model):
            defaults = dict(broadcast_buffers=False, find_unused_parameters=self.cfg.get('find_unused_parameters', False))
            model_wrapper_cfg = {**defaults, **(model_wrapper_cfg or {}), 'device_ids': None}
            model = revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)


def _init_gloo(launcher: str, backend: str = 'gloo', timeout: float | None = None, port: int | None = None, **_) -> None:
    """``backend`` is ignored: configs name the one for GPUs."""
    if torch.cuda.is_available():
        raise ValueError(
            'CPURunner is for machines without a GPU, and one is visible; hide it with CUDA_VISIBLE_DEVICES=-1, or use the default runner'
        )
    names = VARIABLES[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f'launcher {launcher!r} sets {", ".join(names)}, but {", ".join(missing)} is missing; start the processes with '
            f'{STARTERS[launcher]}'
        )
    os.environ.update(zip(VARIABLES['pytorch'], (os.environ[name] for name in names)))
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_slurm_host()
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', '29500')  # as mmengine does
    distributed.init_process_group('gloo', **({} if timeout is None else dict(timeout=timedelta(seconds=timeout))))


def _first_slurm_host() -> str:
    command = ['scontrol', 'show', 'hostnames', os.environ.get('SLURM_NODELIST', '')]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ValueError(
            f'the first machine is not known: MASTER_ADDR is not set, and {" ".join(command)!r} failed ({error}); set MASTER_ADDR'
        ) from error
