"""The demo's table and picture, from two finished runs (tools/demo.sh).

    python tools/demo_report.py WORK_DIR NAME=CONFIG NAME=CONFIG ...

WORK_DIR/<config name> holds each run with detections.bbox.json, as mmdet's tools/test.py wrote it.
"""

import argparse
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet.registry import MODELS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from mmdet_detr_plugin.comparison.accuracy import METRICS, box_metrics  # noqa: E402
from mmdet_detr_plugin.comparison.runs import seconds_per_epoch  # noqa: E402
from mmdet_detr_plugin.visualization.side_by_side import draw_side_by_side  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Table and picture of finished runs.')
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('models', nargs='+', metavar='NAME=CONFIG')
    args = parser.parse_args()
    rows, detections = {}, {}
    for name, config in (model.split('=', 1) for model in args.models):
        cfg = Config.fromfile(config)
        run = args.work_dir / Path(config).stem
        detections[name] = run / 'detections.bbox.json'
        metrics = box_metrics(Path(cfg.test_evaluator.ann_file), detections[name])
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.init_cfg = None
        parameters = sum(parameter.numel() for parameter in MODELS.build(cfg.model).parameters())
        rows[name] = [f'{metrics[key]:.3f}' if metrics[key] >= 0 else '-' for key in METRICS] + [
            f'{parameters / 1e6:.1f} M',
            f'{seconds_per_epoch(run):.0f}',
        ]

    header = [*METRICS, 'parameters', 's/epoch']
    width = max(map(len, rows))
    print('\n' + ' ' * width, *(f'{title:>10}' for title in header))
    for name, row in rows.items():
        print(f'{name:{width}}', *(f'{value:>10}' for value in row))

    dataset = cfg.test_dataloader.dataset
    picture = args.work_dir / 'demo.png'
    draw_side_by_side(Path(dataset.data_root) / dataset.ann_file, Path(dataset.data_root) / dataset.data_prefix.img, detections, picture)
    print(f'\npicture: {picture}')


if __name__ == '__main__':
    main()
