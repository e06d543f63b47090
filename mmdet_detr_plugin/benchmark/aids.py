"""What training aids, and LocalDETR, add to a training step of plain DETR."""

from mmengine.config import Config

from ..ablation.plans import PLANS
from ..config_files import config_path, flat
from . import peers
from .results import Row
from .rows import milliseconds
from .workloads import random_batch, training_step

BASE = 'detr'
VARIANTS = ('points', 'dense', 'groups', 'denoising', 'aided')  # of the ablation's plan; points cost next to nothing, and show the noise


def training_rows(device: str, rounds: int, size: tuple[int, int] = (240, 320), num_objects: int = 7) -> list[Row]:
    """A training step of two images, of the small configs; all in turns."""
    runs = {run.name: run for run in PLANS['aids']}
    (local,) = (run for run in PLANS['parts-data'] if run.name == 'local')
    chosen = [runs[BASE], *(runs[name] for name in VARIANTS), local]
    images, samples = random_batch(2, *size, num_objects, device)
    steps = {}
    for run in chosen:
        cfg = Config.fromfile(config_path(run.config))
        cfg.merge_from_dict(flat(run.options))
        steps[run.name] = training_step(peers.build(cfg.model.to_dict(), device), images, samples)
    times = milliseconds(steps, rounds, warmup=2)
    work = f'training step, small configs, 2 x 3 x {size[0]} x {size[1]} x {num_objects} objects'
    return [
        Row(f'aids-{run.name}', f'{work}: {run.what}', values={'plugin': times[run.name], 'plain DETR': times[BASE]}) for run in chosen[1:]
    ]
