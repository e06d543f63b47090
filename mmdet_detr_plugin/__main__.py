"""List the shipped configs, or print the path of one: ``mim train mmdet $(python -m mmdet_detr_plugin NAME)``."""

import argparse
import sys

from .config_files import config_names, config_path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_detr_plugin', description='Print the path of a shipped config, or list them all.'
    )
    parser.add_argument('name', nargs='?', help='such as detr/detr_r50_8xb2-150e_coco.py, or the file name alone')
    args = parser.parse_args()
    try:
        print(config_path(args.name) if args.name else '\n'.join(config_names()), flush=True)
    except BrokenPipeError:  # | head
        sys.stderr.close()
    except FileNotFoundError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
