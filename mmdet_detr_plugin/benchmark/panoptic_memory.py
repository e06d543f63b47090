"""Peak memory of two panoptic training steps, as JSON: ``python -m mmdet_detr_plugin.benchmark.panoptic_memory NAME cpu|cuda H W``."""

import sys

from . import panoptic_peers
from .panoptic import OBJECTS
from .timing import print_peak_memory


def main() -> None:
    name, device, *size = sys.argv[1:]
    print_peak_memory(lambda: panoptic_peers.step_of(name, tuple(map(int, size)), OBJECTS, device), 2, device)


if __name__ == '__main__':
    main()
