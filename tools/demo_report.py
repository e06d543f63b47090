"""The demo's table and picture, from a finished comparison (tools/demo.sh).

python tools/demo_report.py WORK_DIR
"""

import argparse
import json
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmengine.config import Config  # noqa: E402

from mmdet_detr_plugin.comparison.analysis.matches import METRICS  # noqa: E402
from mmdet_detr_plugin.comparison.results import main_detections  # noqa: E402
from mmdet_detr_plugin.config_files import annotation_file, image_folder  # noqa: E402
from mmdet_detr_plugin.visualization.side_by_side import draw_side_by_side  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Table and picture of a finished comparison.')
    parser.add_argument('work_dir', type=Path)
    args = parser.parse_args()
    models = json.loads((args.work_dir / 'results.json').read_text())['models']
    rows = {model['name']: row_of(model) for model in models}
    header = [*METRICS, 'parameters', 's/epoch']
    width = max(map(len, rows))
    print('\n' + ' ' * width, *(f'{title:>10}' for title in header))
    for name, row in rows.items():
        print(f'{name:{width}}', *(f'{value:>10}' for value in row))

    detections = {}
    for model in models:
        name = Path(model['config']).stem
        cfg = Config.fromfile(args.work_dir / 'configs' / f'{name}.py')
        run = args.work_dir / 'runs' / name / f'seed{model["runs"][0]["seed"]}'
        detections[model['name']] = run / 'detections' / f'{main_detections(cfg)}.json'
    picture = args.work_dir / 'demo.png'
    draw_side_by_side(annotation_file(cfg.test_dataloader), image_folder(cfg.test_dataloader), detections, picture)
    print(f'\npicture: {picture}')


def row_of(model: dict) -> list[str]:
    figures = [model['metrics'][key]['mean'] for key in METRICS]
    shown = ['-' if figure is None else f'{figure:.3f}' for figure in figures]
    return [*shown, f'{model["parameters"] / 1e6:.1f} M', f'{model["runs"][0]["seconds_per_epoch"]:.0f}']


if __name__ == '__main__':
    main()
