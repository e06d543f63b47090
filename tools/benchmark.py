"""Speed and memory of the plugin against mmdet's DETR and HF's, on the same work in one run.

    python tools/benchmark.py [--rows ROW ...] [--rounds N] [--json FILE] [--plot FILE] [--official DIR] [--device cpu|cuda]

Implementations are timed in turns, medians count. Results are compared first (mmdet_detr_plugin/benchmark/rows.py says which). The whole
table takes about 10 minutes on two cores, and 6 more for the rows of training aids and of panoptic training.
"""

import argparse
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
import torch  # noqa: E402

from mmdet_detr_plugin.benchmark import aids, panoptic, rows, scaling  # noqa: E402
from mmdet_detr_plugin.benchmark.results import machine, table  # noqa: E402
from mmdet_detr_plugin.files import write_json  # noqa: E402

TABLE1 = ('detr_r50_8xb2-150e_coco', 'detr_r50-dc5_8xb2-500e_coco', 'detr_r101_8xb2-500e_coco', 'faster-rcnn_r50_fpn_8xb2-150e_coco')
FEW, MANY = dict(official=0.2, mmdet=0.1), dict(official=0.25, mmdet=0.25, HF=0.25)  # what the project asks of itself
ROWS = {
    'loss': lambda device, rounds, official: rows.loss_row('loss', (6, 16, 100), 7, FEW, device, rounds, official),
    'loss-large': lambda device, rounds, official: rows.loss_row('loss-large', (6, 16, 300), 60, MANY, device, rounds, official),
    'inference': lambda device, rounds, _: rows.inference_row(device, rounds),
    'inference-bf16': lambda device, rounds, _: rows.inference_row(device, rounds, 'inference-bf16', bf16=True),
    'onnx': lambda device, rounds, _: rows.onnx_row(device, rounds),
    'training': lambda device, rounds, _: rows.training_row(device, rounds),
    'training-bf16': lambda device, rounds, _: rows.training_row(device, rounds, bf16=True),
    'training-compiled': lambda device, rounds, _: rows.training_row(device, rounds, bf16=True, compiled=True),
    'memory': lambda device, rounds, _: rows.memory_row(device),
    'epoch': lambda device, rounds, _: rows.epoch_row(device, rounds),
    'aids': lambda device, rounds, _: aids.training_rows(device, rounds),
    'panoptic': lambda device, rounds, _: panoptic.training_row(device, rounds),
    'panoptic-memory': lambda device, rounds, _: panoptic.memory_row(device),
    'table1': lambda device, rounds, _: [rows.speed_row(name, device, rounds) for name in TABLE1],
    'scaling': lambda device, rounds, _: scaling.measure(device, rounds),
}


def main() -> None:
    parser = argparse.ArgumentParser(description='Speed and memory of the plugin against other DETRs.')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help=f'default: all of {", ".join(ROWS)}')
    parser.add_argument('--rounds', type=int, default=7, help='timings of each implementation (default: 7)')
    parser.add_argument('--json', type=Path, help='file for all measurements')
    parser.add_argument('--plot', type=Path, help='picture of the scaling rows')
    parser.add_argument('--official', type=Path, metavar='DIR', help='a checkout of facebookresearch/detr, whose loss is then timed too')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    if unknown := sorted(set(args.rows or ()) - set(ROWS)):
        parser.error(f'unknown rows {", ".join(unknown)}; there are {", ".join(ROWS)}')
    found, growths, fault = [], [], None
    try:
        for name in args.rows or ROWS:
            print(f'measuring {name} ...', file=sys.stderr, flush=True)
            result = ROWS[name](args.device, args.rounds, args.official)
            if name == 'scaling':
                growths = result
            else:
                found += result if isinstance(result, list) else [result]
    except (RuntimeError, AssertionError, OSError) as error:
        fault = f'error: {error}'
    conditions = machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in conditions.items()) + '\n')
    if found:
        print(table(found))
    if growths:
        print(scaling.text(growths))
    if args.json:
        scaling_rows = [growth.as_dict() for growth in growths]
        write_json(args.json, dict(machine=conditions, rows=[row.as_dict() for row in found], scaling=scaling_rows))
    if args.plot and growths:
        scaling.plot(growths, args.plot)
    if fault:
        sys.exit(fault)  # what was measured before it stands above


if __name__ == '__main__':
    main()
