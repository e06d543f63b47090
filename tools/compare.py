"""From a data set to an honest comparison of detectors: audit, pre-flight, trainings, report.

    python tools/compare.py CONFIG CONFIG ... [--data DIR] [--seeds 0 1 2] [--epochs N] [--work-dir DIR]
                            [--jobs N] [--launcher none|pytorch|slurm] [--processes N] [--curve-points N] [--allow] [--report-only]

Interrupted and started again, it goes on with what is unfinished. The report (report.html, report.md, results.json) is written in any case,
from what is done. Exit status: 0 all done; 1 a run failed, or the conditions are unfair, or the data has errors; 2 wrong arguments.
"""

import argparse
import shlex
import signal
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
from mmdet_detr_plugin.comparison.analysis.coco_input import quiet  # noqa: E402
from mmdet_detr_plugin.comparison.audit import is_fair, text_table  # noqa: E402
from mmdet_detr_plugin.comparison.compare import Comparison, stopping  # noqa: E402
from mmdet_detr_plugin.comparison.execution import LAUNCHERS, Launch, only_one  # noqa: E402
from mmdet_detr_plugin.comparison.preparation import load_models, write_settings  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='From a data set to an honest comparison of detectors.')
    parser.add_argument('configs', nargs='+', type=Path, metavar='CONFIG', help='a file, or the name of a shipped config')
    parser.add_argument('--data', type=Path, help="a COCO (panoptic too), VOC or YOLO folder (default: the configs' own data)")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N')
    parser.add_argument('--epochs', type=int, help="default: the configs'; drops of the rate move in proportion")
    parser.add_argument('--curve-points', type=int, default=10, metavar='N', help='evaluations of a training (default: 10)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/compare/<name of the data>')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time; each on GPUs of its own where there are some')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='slurm: options of srun come from $SRUN_ARGS')
    parser.add_argument('--processes', type=int, default=1, help='of each training, with a launcher')
    parser.add_argument('--allow', action='store_true', help='go on in unfair conditions or with errors in the data; the report says so')
    parser.add_argument('--report-only', action='store_true', help='train nothing; report what is done')
    args = parser.parse_args()
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f'--seeds must differ, got {args.seeds}')
    if args.curve_points < 1:
        parser.error(f'--curve-points must be at least 1, got {args.curve_points}')
    return args


def main() -> None:
    args = arguments()
    name = args.data.resolve().name if args.data else args.configs[0].stem
    work_dir = (args.work_dir or Path('work_dirs/compare') / name).resolve()
    launch = Launch(args.launcher, args.processes, args.jobs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler, say: the trainings end with this command
    try:
        launch.check()
        with only_one(work_dir):
            models = load_models(args.configs, args.data, args.epochs, work_dir)
            files = write_settings(models, dict(processes=args.processes), work_dir, args.curve_points)
            command = f'python tools/compare.py {shlex.join(argument for argument in sys.argv[1:] if argument != "--report-only")}'
            failed = run(Comparison(models, files, args.seeds, work_dir, launch, name, command), args.allow, args.report_only)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command goes on from the last completed epochs')
    sys.exit(1 if failed else 0)


def run(comparison: Comparison, allow: bool, report_only: bool) -> list:
    """Everything in order; returns the runs that failed."""
    with quiet():
        items, preflight = comparison.audited(), comparison.preflight()
    print(text_table(items, list(comparison.labels.values()), colour=sys.stdout.isatty()), '\n')
    for model, found in preflight:
        where = found.area + (f', {comparison.labels[model]}' if model else '')
        print(f'{found.severity.upper():7}  {where}: {found.finding}\n           -> {found.advice}')
    problems = ([] if is_fair(items) else ['the conditions are not fair']) + stopping(preflight)
    if problems and not allow:
        raise ValueError('nothing was trained: ' + '; '.join(problems) + '. Mend it, or go on with --allow, and the report will say so')
    failed = [] if report_only else comparison.train()
    for each in failed:
        facts = each.read('failed')
        print(f'FAILED: {each.name}, {facts["step"]}, {facts["reason"]}; see {each.log}', file=sys.stderr)
    with quiet():
        paths = comparison.report(items, preflight, lambda text: print(text, file=sys.stderr))
    print('wrote ' + ', '.join(map(str, paths)))
    return failed


if __name__ == '__main__':
    main()
