"""Write a small config that trains any config on a converted data set.

    python tools/make_config.py CONFIG DATA_DIR [--out FILE]

CONFIG is a file, or the name of a shipped config. DATA_DIR is what tools/convert_dataset.py wrote. The new file lands in DATA_DIR, under
CONFIG's name. A file that is there already is replaced only if this tool wrote it and nobody has changed it since.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from mmdet_detr_plugin.config_files import find_config
from mmdet_detr_plugin.datasets.data_configs import config_for_dataset
from mmdet_detr_plugin.files import write_atomically

MARK = '# made by tools/make_config.py, '


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_own(path: Path) -> bool:
    """Whether a file may be replaced: it is not there, or as this tool wrote it."""
    if not path.exists():
        return True
    text, _, mark = path.read_text(errors='replace').rpartition(MARK)
    return mark.strip() == digest(text)


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
    if out.resolve() == config.resolve() or not is_own(out):
        sys.exit(f'error: {out} is another config, or one that was changed after it had been made, and would be lost; choose another --out')
    write_atomically(f'{text}{MARK}{digest(text)}\n'.encode(), out)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
