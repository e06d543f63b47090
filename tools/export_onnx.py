"""Export a trained DETR or LocalDETR to ONNX.

    python tools/export_onnx.py CONFIG CHECKPOINT OUT.onnx [--half] [--simplify]

Any batch, height and width; inputs are images and their sizes without padding. The file holds class names and pre-processing
(mmdet_detr_plugin/deployment/description.py). Run it with mmdet_detr_plugin.deployment, or as tools/run_onnx.py shows. Exit status: 0, or 1
with a reason.
"""

import argparse
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')

from mmdet_detr_plugin.config_files import read_config  # noqa: E402
from mmdet_detr_plugin.deployment.export import export_onnx  # noqa: E402
from mmdet_detr_plugin.prediction.trained_model import load_model  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a trained DETR or LocalDETR to ONNX.')
    parser.add_argument('config', type=Path, metavar='CONFIG', help="a config of the plugin's detectors, or the name of a shipped one")
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT')
    parser.add_argument('out', type=Path, metavar='OUT.onnx')
    parser.add_argument('--half', action='store_true', help='float16 weights and products of backbone and transformer')
    parser.add_argument('--simplify', action='store_true', help='compute all that does not depend on the inputs now')
    args = parser.parse_args()
    if args.out.suffix != '.onnx':
        parser.error(f'the file to write must end in .onnx, got {args.out}')
    try:
        cfg = read_config(args.config)
        description = export_onnx(cfg, load_model(cfg, args.checkpoint, 'cpu'), args.out, args.half, args.simplify)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f'error: {error}')
    size = args.out.stat().st_size / 2**20
    print(f'wrote {args.out}: {description.origin["model"]}, {len(description.classes)} classes, {description.precision}, {size:.1f} MiB')


if __name__ == '__main__':
    main()
