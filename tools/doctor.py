"""The pre-flight: environment, data and recipe, each finding with what to do about it.

    python tools/doctor.py [CONFIG] [--data DIR] [--json FILE]

Without CONFIG: the environment, and the folder's data. Exit status 1 when there is an error.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet_detr_plugin import preflight  # noqa: E402
from mmdet_detr_plugin.config_files import find_config  # noqa: E402
from mmdet_detr_plugin.files import write_json  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Environment, data and recipe before a training.')
    parser.add_argument('config', nargs='?', type=Path, metavar='CONFIG', help='a file, or the name of a shipped config')
    parser.add_argument('--data', type=Path, metavar='DIR', help='a COCO (panoptic too), VOC or YOLO folder, for the config or alone')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the findings there too')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings, areas = collect(args.config, args.data, Path(folder))
    findings = preflight.ordered(findings)
    print(preflight.text(findings, areas))
    if args.json:
        write_json(args.json, [found.as_dict() for found in findings])
    sys.exit(any(found.severity == preflight.ERROR for found in findings))


def collect(config: Path | None, data: Path | None, work_dir: Path) -> tuple[list[preflight.Finding], list[str]]:
    """The findings, and the areas that were looked at."""
    if config is None and data is None:
        return preflight.findings(), ['environment']
    try:
        cfg, in_folder = _read(config, data, work_dir)
    except Exception as error:  # a config is a program: it can fail in any way
        area = 'data' if config is None else 'recipe'
        named = ' on '.join(str(path) for path in (config, data) if path)
        what = f'{named} cannot be used: {type(error).__name__}: {" ".join(str(error).split())}'
        advice = 'correct it, or start from a config of configs/ and a folder that tools/convert_dataset.py reads'
        return [*preflight.findings(), preflight.Finding(area, preflight.ERROR, what, advice)], ['environment', area]
    if config is None:
        return [*preflight.findings(), *in_folder, *preflight.data_findings(cfg)], ['environment', 'data']
    return [*in_folder, *preflight.findings(cfg)], ['environment', 'data', 'recipe']


def _read(config: Path | None, data: Path | None, work_dir: Path) -> tuple:
    """The config, pointed at the folder, and what its reader has found."""
    from mmengine.config import Config  # here, so that an environment without it is still examined

    from mmdet_detr_plugin.preflight.folder import config_for_folder

    if data is not None:
        return config_for_folder(data, work_dir, config)
    return Config.fromfile(find_config(config)), []


if __name__ == '__main__':
    main()
