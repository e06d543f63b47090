"""Run a trained detector on images, folders, patterns and videos.

    python tools/predict.py CONFIG CHECKPOINT INPUT... [--out DIR] [--score-thr 0.7] [--device cpu|cuda] [--batch-size N] [--no-drawing]

Writes predictions.json (COCO, with masks where the model has them), predictions.csv and drawn/; of models with segments also
predictions.panoptic.json and predictions.panoptic/ (COCO panoptic). A file that cannot be read is reported and left out. No input is
replaced. Exit status: 0; 1 when nothing could be predicted; 2 wrong arguments; 130 when interrupted: what was found until then is written.
"""

import argparse
import os
import sys
import warnings
from itertools import chain
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
import torch  # noqa: E402
from rich.progress import Progress  # noqa: E402

from mmdet_detr_plugin.config_files import read_config  # noqa: E402
from mmdet_detr_plugin.datasets.records import printable  # noqa: E402
from mmdet_detr_plugin.prediction.inputs import count_frames, find_inputs, read_frames  # noqa: E402
from mmdet_detr_plugin.prediction.predictor import Predictor  # noqa: E402
from mmdet_detr_plugin.prediction.writers import PredictionWriter  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Run a trained detector on images, folders, patterns and videos.')
    parser.add_argument('config', type=Path, metavar='CONFIG', help="any mmdet config, or the name of one of the plugin's")
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help="files, folders, quoted patterns such as 'shots/**/*.jpg'")
    parser.add_argument('--out', type=Path, default=Path('predictions'), help='folder to write (default: predictions)')
    parser.add_argument('--score-thr', type=float, default=0.7, help="detections below are left out (default: the paper's 0.7)")
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time, padded to one size (default: 1)')
    parser.add_argument('--no-drawing', action='store_true')
    args = parser.parse_args()
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must lie between 0 and 1, got {args.score_thr}')
    try:
        paths = find_inputs(args.inputs, [args.out / 'drawn', args.out / 'predictions.panoptic'])
        predictor = Predictor(read_config(args.config), args.checkpoint, args.device, args.batch_size)
        args.out.mkdir(parents=True, exist_ok=True)
        if not os.access(args.out, os.W_OK):
            raise PermissionError(f'{args.out} cannot be written to; choose another folder with --out')
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    writer = PredictionWriter(args.out, predictor.classes, args.score_thr, not args.no_drawing, predictor.num_things_classes, paths)
    count, interrupted = 0, False
    try:
        with Progress(disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task('predicting', total=sum(map(count_frames, paths)))
            for frame, sample in predictor(chain.from_iterable(map(read_frames, paths))):
                count += writer.add(frame, sample)
                progress.advance(task)
    except KeyboardInterrupt:
        interrupted = True
    finally:  # what has been found is not lost
        written = writer.finish()
    for what, entries in (('left out', writer.problems), ('not drawn', writer.not_drawn)):
        for name, problem in entries:
            print(f'{what}: {printable(name)}: {printable(problem)}', file=sys.stderr)
    found = f'{count} detections of at least {args.score_thr:g} in {len(writer.images)} images'
    print(f'{"interrupted after " if interrupted else ""}{found}; wrote ' + ', '.join(map(str, written)))
    sys.exit(130 if interrupted else 0 if writer.images else 1)


if __name__ == '__main__':
    main()
