"""Convert DETR weights between facebookresearch/detr, HF transformers, mmdet, detrex and this plugin.

    python tools/convert_checkpoint.py SRC DST [--config CONFIG] [--to plugin|official|hf|mmdet|detrex] [--classes FILE] [--num-queries N]

Every tensor must be used and every parameter filled, or nothing is written and the rest is listed.
"""

import argparse
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet_detr_plugin.checkpoints.convert_file import TARGETS, convert_file  # noqa: E402
from mmdet_detr_plugin.config_files import find_config  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert DETR weights between implementations.')
    parser.add_argument('source', type=Path, metavar='SRC', help='.pth, .bin or .safetensors; recognised by its names')
    parser.add_argument('target', type=Path, metavar='DST', help='file to write; for --to hf a folder, or a .safetensors or .bin file')
    parser.add_argument('--config', type=Path, help='a file, or the name of a shipped config, that the weights must fit')
    parser.add_argument('--to', choices=TARGETS, default='plugin', help='whose names to write (default: plugin)')
    parser.add_argument('--classes', type=Path, help='for fine-tuning: COCO JSON, or a text file with a class name in each line')
    parser.add_argument('--num-queries', type=int, help='cut or extend the object queries')
    parser.add_argument(
        '--hf-backbone', choices=('native', 'timm'), help='whose ResNet names HF files get (default: as in SRC, else native)'
    )
    args = parser.parse_args()
    try:
        config = find_config(args.config) if args.config else None
        lines = convert_file(args.source, args.target, args.to, config, args.classes, args.num_queries, args.hf_backbone)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
