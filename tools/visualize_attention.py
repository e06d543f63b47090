"""Show what a trained DETR or LocalDETR attends to.

    python tools/visualize_attention.py CONFIG CHECKPOINT IMAGE... [--out DIR] [--score-thr 0.7] [--top 5] [--points X,Y ...]
                                        [--layer N|all] [--heads] [--device cpu|cuda]
    python tools/visualize_attention.py CONFIG CHECKPOINT --slots [IMAGES] [--slot-panels N|all]

Writes a folder for each image: encoder.png, cross.png (LocalDETR: regions.png), masks.png (panoptic models), queries.png, boxes.png, and
attention.html, one file in which pointing at a detection shows its attention. --slots writes slots.png and slots.json over the config's
test data. Shown are detections of at least the threshold, but the best ones at any rate, so that a model that has learned little shows
something too. A file that cannot be read is reported and left out. Exit status: 0; 1 when nothing could be shown; 2 wrong arguments.
"""

import argparse
import sys
import warnings
from itertools import islice
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from rich.progress import track  # noqa: E402

from mmdet_detr_plugin.comparison.inference import ordered_loader  # noqa: E402
from mmdet_detr_plugin.config_files import read_config  # noqa: E402
from mmdet_detr_plugin.files import write_json  # noqa: E402
from mmdet_detr_plugin.prediction.inputs import find_inputs, is_video, read_frames  # noqa: E402
from mmdet_detr_plugin.prediction.predictor import Predictor  # noqa: E402
from mmdet_detr_plugin.visualization.attention import check_has_attention  # noqa: E402
from mmdet_detr_plugin.visualization.attention_figures import choice_of  # noqa: E402
from mmdet_detr_plugin.visualization.attention_files import write_attention  # noqa: E402
from mmdet_detr_plugin.visualization.image_attention import look_at  # noqa: E402
from mmdet_detr_plugin.visualization.panels import write_png  # noqa: E402
from mmdet_detr_plugin.visualization.query_slots import check_has_slots, collect_slots, slots_figure  # noqa: E402


def main() -> None:
    parser = _parser()
    args = parser.parse_intermixed_args()  # images may also stand after options
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must lie between 0 and 1, got {args.score_thr}')
    if not args.inputs and args.slots is None:
        parser.error('name images, or ask for --slots')
    if args.top < 1 or (args.slots or 0) < 0:
        parser.error(f'--top must be at least 1 and --slots a number of images, got {args.top} and {args.slots}')
    try:
        paths = find_inputs(args.inputs) if args.inputs else []
        cfg = read_config(args.config)
        predictor = Predictor(cfg, args.checkpoint, args.device)
        done = _show_slots(cfg, predictor, args) if args.slots is not None else 0
        done += _show_images(predictor, paths, args) if paths else 0
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    sys.exit(0 if done else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Show what a trained DETR or LocalDETR attends to.')
    parser.add_argument('config', type=Path, metavar='CONFIG', help="config of a DETR or LocalDETR, or the name of one of the plugin's")
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT')
    parser.add_argument('inputs', nargs='*', metavar='IMAGE', help="files, folders, quoted patterns such as 'shots/**/*.jpg'")
    parser.add_argument('--out', type=Path, default=Path('attention'), help='folder to write (default: attention)')
    parser.add_argument('--score-thr', type=float, default=0.7, help="detections from this score on are shown (default: the paper's 0.7)")
    parser.add_argument('--top', type=int, default=5, help='show so many queries at least, the best ones (default: 5)')
    parser.add_argument(
        '--points',
        nargs='+',
        type=_point,
        metavar='X,Y',
        help="in pixels of the image: points from which the encoder's attention is drawn (default: centres of the best detections)",
    )
    parser.add_argument('--layer', type=_number_or_all, default=None, help='layer to draw, from 1, or all (default: the last one)')
    parser.add_argument('--heads', action='store_true', help='draw each head of the cross-attention by itself too (heads.png)')
    parser.add_argument(
        '--slots', type=int, nargs='?', const=0, metavar='IMAGES', help='boxes of every query slot on so many test images (default: all)'
    )
    parser.add_argument('--slot-panels', type=_number_or_all, default=20, metavar='N', help='slots to draw, or all (default: 20)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected two numbers such as 120,80, got {text!r}') from None
    return x, y


def _number_or_all(text: str) -> int | str:
    if text != 'all' and not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, or 'all', got {text!r}")
    return text if text == 'all' else int(text)


def _show_images(predictor: Predictor, paths: list[Path], args: argparse.Namespace) -> int:
    """Returns how many images were shown."""
    check_has_attention(predictor.model)  # before any image is read
    folders: set[Path] = set()
    for path in track(paths, 'looking', disable=not sys.stderr.isatty()):
        stem = path.stem if path.stem.strip('.') else path.name  # '...jpg' has the stem '..', which would be the folder above
        folder = args.out / stem
        number = 2
        while folder in folders:  # images of one name in several folders
            folder = args.out / f'{stem}-{number}'
            number += 1
        problem = 'is a video; take images out of it' if is_video(path) else _show_image(predictor, path, folder, args)
        if problem is None:
            folders.add(folder)
        else:
            print(f'left out: {path}: {problem}', file=sys.stderr)
    return len(folders)


def _show_image(predictor: Predictor, path: Path, folder: Path, args: argparse.Namespace) -> str | None:
    """Returns the problem, if there is one."""
    (frame,) = read_frames(path)
    layer = None if args.layer in (None, 'all') else args.layer - 1
    try:
        image = look_at(predictor, frame, args.score_thr, args.top)
        if image is None:
            return frame.problem
        written = write_attention(image, folder, args.config.stem, args.points, layer, args.layer == 'all', args.heads)
    except ValueError as error:  # such as a point outside this image
        return str(error)
    print(f'{path}: {choice_of(image)}; wrote {folder}/ ' + ', '.join(path.name for path in written))
    return None


def _show_slots(cfg: Config, predictor: Predictor, args: argparse.Namespace) -> int:
    """Returns how many images were seen."""
    check_has_slots(predictor.model)
    loader = ordered_loader(cfg.test_dataloader, batch_size=1)
    number = min(args.slots or len(loader), len(loader))
    batches = track(islice(loader, number), 'looking', total=number, disable=not sys.stderr.isatty())
    slots = collect_slots(predictor.model, batches)
    paths = [args.out / 'slots.png', args.out / 'slots.json']
    write_png(slots_figure(slots, None if args.slot_panels == 'all' else args.slot_panels), paths[0])
    write_json(paths[1], slots.summary())
    print(f'boxes of {slots.boxes_cxcywh_norm.shape[1]} query slots on {number} test images; wrote ' + ', '.join(map(str, paths)))
    return number


if __name__ == '__main__':
    main()
