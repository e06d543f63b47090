"""Write a small config that trains any config on a converted data set.

    python tools/make_config.py CONFIG DATA_DIR [--out FILE]

CONFIG is a file, or the name of a shipped config. DATA_DIR is what tools/convert_dataset.py wrote. The new file lands in DATA_DIR, under
CONFIG's name.
"""

import argparse
import sys
from pathlib import Path

from mmdet_detr_plugin.config_files import find_config
from mmdet_detr_plugin.datasets.data_configs import config_for_dataset
from mmdet_detr_plugin.files import write_atomically


def main() -> None:
    parser = argparse.ArgumentParser(description='Write a small config that trains any config on a converted data set.')
    parser.add_argument('config', type=Path, metavar='CONFIG', help='a file, or the name of a shipped config')
    parser.add_argument('data', type=Path, metavar='DATA_DIR')
    parser.add_argument('--out', type=Path, help='file to write (default: DATA_DIR/<name of CONFIG>)')
    args = parser.parse_args()
    try:
        config = find_config(args.config)
        text = config_for_dataset(config, args.data)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    out = args.out or args.data / config.name
    write_atomically(text.encode(), out)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
