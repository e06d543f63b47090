"""What helps a DETR on little data, and what it costs: short trainings that differ in one thing each.

    python tools/ablate.py PLAN [--runs NAME ...] [--seeds N ...] [--epochs N] [--data DIR] [--out DIR] [--work-dir DIR]

images: DETR plain and with aids, LocalDETR and Faster R-CNN on 50 to 800 images of the shapes data, the same number of iterations.
parts: LocalDETR without some of its parts, on the same data.
baseline: Faster R-CNN with other optimisers, rates, norms and sizes, on the same data.
aids: plain DETR with what helps it, all but one, one more, and each alone, on a data set of yours (--data).
parts-data: LocalDETR with other steps and rates on a data set of yours.
baseline-data: Faster R-CNN with other optimisers and rates on a data set of yours.

Every run leaves one JSON file; runs that have one are not repeated, and a run that was interrupted goes on from its last epoch. Without
--out the results are those that the repository keeps. Generate the shapes first: python tools/make_shapes.py data/shapes
"""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet_detr_plugin.ablation import OWN_DATA, PLANS, results_folder, run_plan, table  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description='Short trainings that differ in one thing each.')
    parser.add_argument('plan', choices=PLANS)
    parser.add_argument('--runs', nargs='+', metavar='NAME', help='default: all')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N')
    parser.add_argument('--epochs', type=int, help="default: the configs'; drops of the rate stay where they are")
    parser.add_argument('--data', type=Path, help='folder of the shapes (default: data/shapes); of aids and of *-data: your own')
    parser.add_argument('--out', type=Path, help='folder of the results')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'))
    args = parser.parse_args()
    names = [run.name for run in PLANS[args.plan]]
    if unknown := sorted(set(args.runs or ()) - set(names)):
        parser.error(f'unknown runs {", ".join(unknown)}; there are {", ".join(names)}')
    data = args.data if args.plan in OWN_DATA else None
    if args.plan in OWN_DATA and not data:
        parser.error(f'{args.plan} needs a data set: --data DIR')
    if (args.epochs or (args.data and not data)) and not args.out:
        parser.error('--epochs and --data change what is measured; name a folder for such results with --out')
    options = {}
    if args.epochs:
        options |= {'train_cfg.max_epochs': args.epochs, 'train_cfg.val_interval': args.epochs}
    if args.data and not data:
        for loader in ('train', 'val', 'test'):
            options[f'{loader}_dataloader.dataset.data_root'] = f'{args.data}/'
        options['val_evaluator.ann_file'] = options['test_evaluator.ann_file'] = f'{args.data}/annotations/test.json'
    runs = [run for run in PLANS[args.plan] if not args.runs or run.name in args.runs]
    try:
        out = args.out or results_folder(args.plan)
        say = partial(print, file=sys.stderr)
        print(table(run_plan(runs, out, args.work_dir / args.plan, options, args.seeds, data, say)))
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
