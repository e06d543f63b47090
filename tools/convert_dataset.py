"""Convert a COCO (panoptic too), Pascal VOC or YOLO folder to COCO JSON. Images stay where they are.

python tools/convert_dataset.py SRC [--out DIR] [--val-fraction 0.2] [--seed 0] [--panoptic]
"""

import argparse
import os
import sys
from pathlib import Path

from mmdet_detr_plugin.datasets.conversion import earlier_splits, with_splits, write_coco
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.datasets.records import DatasetRecords


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert a COCO (panoptic too), Pascal VOC or YOLO folder to COCO JSON.')
    parser.add_argument('source', type=Path, metavar='SRC', help='the folder of the data set')
    parser.add_argument('--out', type=Path, help='folder to write (default: data/<name of SRC>)')
    parser.add_argument('--val-fraction', type=float, default=0.2, help='validation images where the source has no split (default: 0.2)')
    parser.add_argument('--seed', type=int, default=0, help='of that division')
    parser.add_argument('--panoptic', action='store_true', help="read the segments of COCO's panoptic format, for panoptic configs")
    args = parser.parse_args()
    if not 0 < args.val_fraction < 1:
        parser.error(f'--val-fraction must lie between 0 and 1, got {args.val_fraction}')
    out = args.out or Path('data') / args.source.resolve().name
    try:
        earlier = earlier_splits(out, args.source, args.val_fraction, args.seed)
        records = with_splits(read_dataset(args.source, args.panoptic), args.val_fraction, args.seed, earlier)
        files = write_coco(records, out, args.source)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    report(records)
    if records.division:
        drawn = sum(image.split == 'val' for image in records.images)
        print(
            f'\nno validation split was found: {drawn} of {len(records.images)} images were drawn at random for validation '
            f'(--val-fraction {args.val_fraction:g} --seed {args.seed})'
        )
        if kept := sum(os.path.abspath(image.path) in earlier for image in records.images):
            print(f'\n{kept} images stay in the split of the earlier conversion in {out}, {len(records.images) - kept} are new')
    print('\nwrote ' + ', '.join(map(str, files)))
    print(f'next: python tools/make_config.py CONFIG {out}')


def report(records: DatasetRecords) -> None:
    splits = sorted({image.split for image in records.images})
    counts = {split: records.class_counts(split) for split in splits}
    width = max(map(len, ['images without objects', *records.classes]))
    print(f'{records.layout} data set with {len(records.classes)} classes\n')
    print(' ' * width, *(f'{split:>8}' for split in splits))
    print(f'{"images":{width}}', *(f'{sum(image.split == split for image in records.images):8}' for split in splits))
    empty = [sum(image.split == split and not image.boxes for image in records.images) for split in splits]
    print(f'{"images without objects":{width}}', *(f'{count:8}' for count in empty))
    for name in records.classes:
        print(f'{name:{width}}', *(f'{counts[split][name]:8}' for split in splits))
    for reason, items in records.notes.items():
        print(f'\n{reason}: {len(items)}')
        for item in items[:5]:
            print(f'  {item}')
        if len(items) > 5:
            print(f'  ... and {len(items) - 5} more')
    if not records.notes:
        print('\nnothing was left out or changed')


if __name__ == '__main__':
    main()
