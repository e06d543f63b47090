"""Generate the shapes data set: PNG images, COCO JSON and COCO panoptic ground truth.

python tools/make_shapes.py [OUT] [--train 800] [--test 500] [--size 128] [--seed 0]
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mmdet_detr_plugin.datasets.shapes import write_split


def main() -> None:
    parser = argparse.ArgumentParser(description='Generate the shapes data set.')
    parser.add_argument('out', nargs='?', default='data/shapes', type=Path, help='folder to write (default: data/shapes)')
    parser.add_argument('--train', type=int, default=800, help='training images (default: 800)')
    parser.add_argument('--test', type=int, default=500, help='test images (default: 500)')
    parser.add_argument('--size', type=int, default=128, help='side of the square images in pixels (default: 128)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.size < 32 or min(args.train, args.test) < 1:
        parser.error('--size must be at least 32, --train and --test at least 1')
    for split, count in (('train', args.train), ('test', args.test)):
        annotations = args.out / 'annotations' / f'{split}.json'
        wanted = dict(description='generated shapes', seed=args.seed, split=split, size=args.size, count=count)
        if annotations.is_file() and json.loads(annotations.read_text()).get('info') == wanted:
            print(f'{annotations} is there already')
            continue
        try:
            write_split(args.out, args.seed, split, count, args.size, progress=partial(tqdm, total=count, desc=split, unit='image'))
        except (ValueError, OSError) as error:
            sys.exit(f'error: {error}')
        print(f'wrote {annotations} ({count} images)')


if __name__ == '__main__':
    main()
