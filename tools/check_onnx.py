"""Compare an exported detector with its checkpoint in PyTorch on real images.

    python tools/check_onnx.py CONFIG CHECKPOINT MODEL.onnx [INPUT...] [--annotations FILE] [--batch-size N] [--tolerance T]

Without INPUT: the config's test images and annotations. Prints the largest differences, and AP of both where there are annotations; of
models with segments also how many pixels get another class. Exit status: 0; 1 when detections differ by more than the tolerance (in fp16:
more than 5 % of them), pixels of an image by more than 1 % (5 %), or nothing could be compared; 2 wrong arguments.
"""

import argparse
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')

from mmdet_detr_plugin.config_files import read_config  # noqa: E402
from mmdet_detr_plugin.deployment import init_detector  # noqa: E402
from mmdet_detr_plugin.deployment.check import Agreement, check, images_to_compare  # noqa: E402
from mmdet_detr_plugin.prediction.predictor import Predictor  # noqa: E402

TOLERANCE = dict(fp32=1e-4, fp16=2e-2)
BEYOND = dict(fp32=0.0, fp16=0.05)  # share of detections: which locations LocalDETR selects can change with the last digit of a score

PIXELS = dict(fp32=0.01, fp16=0.05)  # of an image: rounding decides about segments of 4 or 5 pixels, and who gets theirs


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare an exported detector with its checkpoint in PyTorch on real images.')
    parser.add_argument('config', type=Path, metavar='CONFIG')
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT')
    parser.add_argument('onnx', type=Path, metavar='MODEL.onnx')
    parser.add_argument('inputs', nargs='*', metavar='INPUT', help="images, folders, patterns; default: the config's test images")
    parser.add_argument('--annotations', type=Path, metavar='FILE', help='COCO file whose names are below INPUT, then one folder; for AP')
    parser.add_argument('--batch-size', type=int, default=2, help='images at a time, padded to one size (default: 2)')
    parser.add_argument('--tolerance', type=float, help='default: ' + ', '.join(f'{value:g} ({key})' for key, value in TOLERANCE.items()))
    args = parser.parse_args()
    if args.annotations and len(args.inputs) != 1:
        parser.error('--annotations needs one folder as INPUT')
    try:
        cfg = read_config(args.config)
        detector = init_detector(args.onnx)
        files, annotations, image_ids = images_to_compare(cfg, args.inputs, args.annotations)
        found = check(Predictor(cfg, args.checkpoint, 'cpu', args.batch_size), detector, files, annotations, image_ids)
    except (ValueError, KeyError, ImportError, OSError) as error:
        sys.exit(f'error: {error}')
    precision = detector.description.precision
    tolerance = TOLERANCE[precision] if args.tolerance is None else args.tolerance
    print_agreement(found, tolerance)
    agree = found.beyond(tolerance) <= BEYOND[precision] * len(found.box_differences)
    agree = agree and max(found.segment_differences, default=0.0) <= PIXELS[precision]
    sys.exit(0 if found.images and agree else 1)


def print_agreement(found: Agreement, tolerance: float) -> None:
    for name, problem in found.problems:
        print(f'left out: {name}: {problem}', file=sys.stderr)
    print(f'{found.images} images, {len(found.box_differences)} detections of both')
    boxes, scores = (max(values, default=0.0) for values in (found.box_differences, found.score_differences))
    print(f'largest difference of a box: {boxes:.1e} of the image, of a score: {scores:.1e}')
    print(f'detections that differ by more than {tolerance:g}: {found.beyond(tolerance)}')
    if found.segment_differences:
        print(f'largest share of pixels of an image with another class: {max(found.segment_differences):.2%}')
    if found.pytorch is not None:
        for name, value in found.pytorch.items():
            ours, theirs = ('-' if x is None else f'{x:.4f}' for x in (value, found.onnx[name]))
            print(f'{name:5} PyTorch {ours}  ONNX {theirs}')


if __name__ == '__main__':
    main()
