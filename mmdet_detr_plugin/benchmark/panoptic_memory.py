"""Peak memory of two panoptic training steps, as JSON: ``python -m mmdet_detr_plugin.benchmark.panoptic_memory NAME cpu|cuda H W``."""

import json
import sys

import torch

from . import panoptic_peers
from .panoptic import OBJECTS
from .timing import resident


def main() -> None:
    name, device, *size = sys.argv[1:]
    before = resident()['VmRSS']
    step = panoptic_peers.step_of(name, tuple(map(int, size)), OBJECTS, device)
    for _ in range(2):
        step()
    process = resident()['VmHWM']
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else process - before
    print(json.dumps(dict(peak=peak, process=process)))


if __name__ == '__main__':
    main()
