"""Whether configs compare models under equal conditions: what is equal, what differs and may, what differs and must not.

    python tools/audit.py CONFIG CONFIG ... [--data DIR] [--batches N]

Also compares what the training loaders deliver, pixel by pixel, where the data is there. Exit status 1 when something unfair differs.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet_detr_plugin.comparison.audit import audit, delivered_item, is_fair, text_table  # noqa: E402
from mmdet_detr_plugin.comparison.preparation import load_models  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Whether configs compare models under equal conditions.')
    parser.add_argument('configs', nargs='+', type=Path, metavar='CONFIG', help='a file, or the name of a shipped config')
    parser.add_argument('--data', type=Path, help='a COCO (panoptic too), VOC or YOLO folder to point the configs at')
    parser.add_argument(
        '--batches', type=int, default=25, help='batches of each of two epochs whose pixels are compared; 0: none (default: 25)'
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            models = load_models(args.configs, args.data, work_dir=Path(folder))
            cfgs = [model.cfg for model in models]
            items = audit(cfgs)
            if args.batches > 0:
                items.append(delivered_item(cfgs, args.batches))
        except (ValueError, OSError) as error:
            sys.exit(f'error: {error}')
    print(text_table(items, [model.name for model in models], colour=sys.stdout.isatty()))
    sys.exit(not is_fair(items))


if __name__ == '__main__':
    main()
