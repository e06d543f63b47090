"""Peak memory of three training steps, printed as JSON: ``python -m mmdet_detr_plugin.benchmark.training_memory plugin|mmdet cpu|cuda``."""

import sys
from collections.abc import Callable

from . import peers
from .timing import print_peak_memory
from .workloads import random_batch, training_step


def main() -> None:
    name, device = sys.argv[1:]
    print_peak_memory(lambda: step_of(name, device), 3, device)


def step_of(name: str, device: str) -> Callable[[], object]:
    """Of DETR R50, the plugin's or mmdet's."""
    config = peers.model_config('detr_r50_8xb2-150e_coco')
    model = peers.build(config if name == 'plugin' else peers.mmdet_config(config), device)
    return training_step(model, *random_batch(2, 512, 640, 7, device))


if __name__ == '__main__':
    main()
