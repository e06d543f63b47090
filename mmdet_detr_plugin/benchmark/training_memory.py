"""Peak memory of three training steps, printed as JSON: ``python -m mmdet_detr_plugin.benchmark.training_memory plugin|mmdet cpu|cuda``."""

import json
import sys

import torch

from . import peers
from .timing import resident
from .workloads import random_batch, training_step


def main() -> None:
    name, device = sys.argv[1:]
    before = resident()['VmRSS']
    config = peers.model_config('detr_r50_8xb2-150e_coco')
    model = peers.build(config if name == 'plugin' else peers.mmdet_config(config), device)
    step = training_step(model, *random_batch(2, 512, 640, 7, device))
    for _ in range(3):
        step()
    process = resident()['VmHWM']
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else process - before
    print(json.dumps(dict(peak=peak, process=process)))


if __name__ == '__main__':
    main()
