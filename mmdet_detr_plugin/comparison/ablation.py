"""Short trainings that differ in one thing each: what helps, what does not, what it costs. What ``tools/ablate.py`` runs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config

from ..benchmark.results import machine
from ..config_files import config_path, configs_folder, flat, mmdet_train_script
from ..datasets.conversion import converted_folder
from ..datasets.data_configs import config_for_dataset
from ..files import sha256_of, write_json
from .runs import last_scalars, seconds_per_epoch

NO_DENSE = {'model.training_aids.dense': None}
NO_POINTS = {'model.neck.reference_points': None, 'model.bbox_head.zero_init_boxes': False}
NOT_NEAR = {'model.neck.look_near': 0.0}
LONG_WAVES = {'model.neck.position_encoding.scale': 6.283185, 'model.neck.position_encoding.temperature': 10000.0}  # the paper's
PAPERS_START = NO_POINTS | NOT_NEAR | LONG_WAVES
GROUPS = {'model.training_aids.groups': dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2)}
DENOISING = {'model.training_aids.denoising': dict(type='mmdet_detr_plugin.DenoisingQueries', num_classes=80)}
NO_NORM = {'model.neck.norm_cfg': None}
FOUR_CONVS = {  # the head of mmdet's configs for Faster R-CNN from scratch, with batch norm as in the backbone
    'model.roi_head.bbox_head.type': 'Shared4Conv1FCBBoxHead',
    'model.roi_head.bbox_head.conv_out_channels': 128,
    'model.roi_head.bbox_head.norm_cfg': dict(type='BN'),
}
FULL_SIZE = {
    'model.neck.out_channels': 256,
    'model.rpn_head.in_channels': 256,
    'model.rpn_head.feat_channels': 256,
    'model.roi_head.bbox_roi_extractor.out_channels': 256,
    'model.roi_head.bbox_head.in_channels': 256,
    'model.roi_head.bbox_head.fc_out_channels': 1024,
    'model.train_cfg.rpn_proposal.nms_pre': 2000,
    'model.train_cfg.rpn_proposal.max_per_img': 1000,
    'model.train_cfg.rcnn.sampler.num': 512,
    'model.test_cfg.rpn.nms_pre': 1000,
    'model.test_cfg.rpn.max_per_img': 1000,
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of its JSON file.
        config: name of a shipped config.
        what: for people.
        options: values that replace the config's, by dotted name.
    """

    name: str
    config: str
    what: str
    options: dict = field(default_factory=dict)


PLAIN, AIDED, LOCAL, FASTER_RCNN = (
    f'{name}_1xb4-10e_shapes' for name in ('detr_r18-half', 'detr-aided_r18-half', 'local-detr_r18-half', 'faster-rcnn_r18-half_fpn')
)
SMALL_PLAIN, SMALL_AIDED, SMALL_LOCAL, SMALL_FASTER_RCNN = (
    f'{name}_1xb2-12e_coco320' for name in ('detr_r18-half', 'detr-aided_r18-half', 'local-detr_r18-half', 'faster-rcnn_r18-half_fpn')
)
ITERATIONS, BATCH_SIZE = 1000, 4  # of every training on shapes


def _sgd(rate: float) -> dict:
    return {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=rate, momentum=0.9, weight_decay=1e-4)}


def _adamw(rate: float) -> dict:
    return {'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=rate, weight_decay=0.05)}


def _of_images(number: int) -> dict:
    """The first images only, for the same number of iterations; the rate drops after four fifths of them."""
    epochs = ITERATIONS * BATCH_SIZE // number
    return {
        'train_dataloader.dataset.indices': number,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.1.end': epochs,
        'param_scheduler.1.milestones': [epochs * 4 // 5],
    }


PLANS = {
    'images': [
        Run(f'{name}-{number}', config, f'{what}, {number} images', _of_images(number))
        for number in (50, 100, 200, 400, 800)
        for name, config, what in (
            ('detr', PLAIN, 'plain DETR'),
            ('aided', AIDED, 'plain DETR with all that helps it'),
            ('local', LOCAL, 'LocalDETR'),
            ('faster-rcnn', FASTER_RCNN, 'Faster R-CNN'),
        )
    ],
    'parts': [
        Run(name, LOCAL, what, _of_images(800) | changes)
        for name, what, changes in (
            ('local', 'LocalDETR', {}),
            ('local-no-jitter', '- jittered boxes', {'model.bbox_head.jitter': None}),
            ('local-no-context', '- view beyond the box', {'model.bbox_head.view_scale': 1.0}),
            ('local-one-layer', 'one decoder layer', {'model.bbox_head.num_decoder_layers': 1}),
            ('local-full-steps', 'boxes move five times as far', {'model.bbox_head.delta_scale': 1.0}),
            *((f'local-rate-{rate}', f'rate {rate}', {'optim_wrapper.optimizer.lr': rate}) for rate in (0.0005, 0.002)),
        )
    ],
    'baseline': [
        Run(name, FASTER_RCNN, what, _of_images(800) | changes)
        for name, what, changes in (
            *((f'sgd-{rate}', f'SGD at {rate}', _sgd(rate)) for rate in (0.01, 0.02, 0.04)),
            *((f'adamw-{rate}', f'AdamW at {rate}', _adamw(rate)) for rate in (0.0005, 0.001, 0.002, 0.004)),
            ('sgd-no-norm', 'SGD at 0.02, no norm in the FPN', _sgd(0.02) | NO_NORM),
            ('adamw-no-norm', 'AdamW at 0.001, no norm in the FPN', _adamw(0.001) | NO_NORM),
            ('sgd-four-convs', 'SGD at 0.02, four convolutions with norm in the head', _sgd(0.02) | FOUR_CONVS),
            ('adamw-four-convs', 'AdamW at 0.001, four convolutions with norm in the head', _adamw(0.001) | FOUR_CONVS),
            ('adamw-full-size', "AdamW at 0.001, channels and proposals of mmdet's base config", _adamw(0.001) | FULL_SIZE),
        )
    ],
    'parts-data': [
        Run(name, SMALL_LOCAL, what, changes)
        for name, what, changes in (
            ('local', 'LocalDETR', {}),
            *(
                (f'local-steps-{scale}', f'boxes move {scale} times as far as without scaling', {'model.bbox_head.delta_scale': scale})
                for scale in (0.1, 0.5, 1.0)
            ),
            *((f'local-rate-{rate}', f'rate {rate}', {'optim_wrapper.optimizer.lr': rate}) for rate in (0.00025, 0.001)),
        )
    ],
    'baseline-data': [
        Run(name, SMALL_FASTER_RCNN, what, changes)
        for name, what, changes in (
            *((f'sgd-{rate}', f'SGD at {rate}', _sgd(rate)) for rate in (0.005, 0.01, 0.02)),
            *((f'adamw-{rate}', f'AdamW at {rate}', _adamw(rate)) for rate in (0.00025, 0.0005, 0.001)),
        )
    ],
    'aids': [
        Run('detr', SMALL_PLAIN, 'plain DETR'),
        Run('aided', SMALL_AIDED, 'plain DETR with all that helps it'),
        Run('aided-no-dense', SMALL_AIDED, '- dense head', NO_DENSE),
        Run('aided-no-points', SMALL_AIDED, '- reference points and boxes that start at them', NO_POINTS),
        Run('aided-no-near', SMALL_AIDED, '- attention that starts near', NOT_NEAR),
        Run('aided-long-waves', SMALL_AIDED, '- positions in short waves', LONG_WAVES),
        Run('aided-learned-points', SMALL_AIDED, 'reference points that are learned', {'model.neck.reference_points': 'learned'}),
        Run('aided-groups', SMALL_AIDED, '+ two groups of queries', GROUPS),
        Run('aided-denoising', SMALL_AIDED, '+ denoising queries', DENOISING),
        # each alone: the network of the paper, at the rate and clipping of the aided one; the better start alone is aided-no-dense
        Run('none', SMALL_AIDED, 'plain DETR at the rate and clipping of the others', PAPERS_START | NO_DENSE),
        Run('points', SMALL_AIDED, 'reference points and boxes that start at them alone', NO_DENSE | NOT_NEAR | LONG_WAVES),
        Run('waves', SMALL_AIDED, 'positions in short waves alone', NO_DENSE | NO_POINTS | NOT_NEAR),
        Run('dense', SMALL_AIDED, 'dense head alone', PAPERS_START),
        Run('groups', SMALL_AIDED, 'two groups of queries alone', PAPERS_START | NO_DENSE | GROUPS),
        Run('denoising', SMALL_AIDED, 'denoising queries alone', PAPERS_START | NO_DENSE | DENOISING),
    ],
}


OWN_DATA = ('aids', 'parts-data', 'baseline-data')  # plans on a data set of one's own


def results_folder(plan: str) -> Path:
    """Where the results of a plan are kept in the repository."""
    return configs_folder() / ('small' if plan in OWN_DATA else 'shapes') / 'results' / plan


def run_plan(
    runs: Sequence[Run],
    out: Path,
    work_dir: Path,
    options: dict | None = None,
    seeds: Sequence[int] = (0,),
    data: Path | None = None,
    say=print,
) -> list[dict]:
    """Train what has no result yet; interrupted and started again, it goes on.

    Args:
        out: folder of one JSON file for each run and seed.
        work_dir: folder of the trainings.
        options: for all runs; where a run has its own value, these win.
        data: a data set instead of the configs'; COCO, VOC and YOLO folders are converted into ``work_dir``.

    Returns:
        All results, in the order of the runs.

    Raises:
        RuntimeError: when a training fails, with the end of its output.
        FileNotFoundError, ValueError: for data that cannot be read.
        ValueError: when a result or a training to go on with was made with other options or data, or has logged no evaluation.
    """
    results, common = [], dict(options or {})
    if data is not None:
        name = data.resolve().name
        data, _ = converted_folder(data, work_dir)
        content = json.loads((data / 'annotations' / 'train.json').read_text())
        common |= dict(data=name, train_images=len(content['images']), train_objects=len(content['annotations']))
    for run in runs:
        for seed in seeds:
            path = out / f'{run.name}-seed{seed}.json'
            if not path.is_file():
                say(f'{run.name}, seed {seed}: training')
                out.mkdir(parents=True, exist_ok=True)
                write_json(path, _train(run, seed, work_dir / f'{run.name}-seed{seed}', options or {}, data) | dict(common=common))
            result = json.loads(path.read_text())
            _check_made_alike(path, result, run, common)
            results.append(result)
    return results


def _check_made_alike(path: Path, result: dict, run: Run, common: dict) -> None:
    """A result that is kept must be that of this run."""
    asked = json.loads(json.dumps(dict(config=run.config, options=run.options, common=common)))  # tuples are lists in the file
    for key, value in asked.items():
        if result[key] != value:
            raise ValueError(
                f'{path} was made with {result[key] or "the settings of the configs"}, this run has {value or "those of the configs"}; '
                'write to another folder (--out), or remove that file to train again'
            )


def _train(run: Run, seed: int, work_dir: Path, options: dict, data: Path | None) -> dict:
    values = flat({**run.options, **options, 'randomness.seed': seed})
    config = config_path(run.config)
    if data is not None:
        text = config_for_dataset(Path(config), data)
        work_dir.mkdir(parents=True, exist_ok=True)
        config = str(work_dir / 'of_data.py')
        Path(config).write_text(text)
        num_classes = len(Config.fromfile(config).metainfo.classes)
        values |= {key: num_classes for key in values if key.endswith('.num_classes')}
    _claim(work_dir, config, values, data)
    command = [sys.executable, '-W', 'ignore', str(mmdet_train_script()), config, '--work-dir', str(work_dir), '--resume']
    command += ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{run.name}: {" ".join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}')
    metrics = {key.removeprefix('coco/bbox_'): value for key, value in last_scalars(work_dir).items() if key.startswith('coco/bbox_mAP')}
    return dict(
        name=run.name,
        what=run.what,
        config=run.config,
        options=run.options,
        seed=seed,
        metrics=metrics,
        seconds_per_epoch=round(seconds_per_epoch(work_dir), 1),
        machine=machine('cuda' if torch.cuda.is_available() else 'cpu'),
    )


def _claim(work_dir: Path, config: str, values: dict, data: Path | None) -> None:
    """Note what a folder's training is of, so that nothing else is ever taken for its beginning."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(values)
    asked = dict(config=cfg.pretty_text)
    if data is not None:
        asked |= dict(annotations=sha256_of(data / 'annotations' / 'train.json'))
    note = work_dir / 'training_of.json'
    of_this = json.loads(note.read_text()) == asked if note.is_file() else not (work_dir / 'last_checkpoint').is_file()
    if not of_this:
        raise ValueError(
            f'{work_dir} holds a training with other settings or data; expected one of this run, to go on with. Take another folder '
            '(--work-dir), or remove that one'
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    write_json(note, asked)


def table(results: Sequence[dict]) -> str:
    """Markdown; one line for each run, means over its seeds."""
    lines = ['| | AP | AP50 | AP75 | seconds an epoch | seeds |', '|---|---|---|---|---|---|']
    by_run: dict[str, list[dict]] = {}
    for result in results:
        by_run.setdefault(result['name'], []).append(result)
    for runs in by_run.values():
        cells = [sum(run['metrics'][key] for run in runs) / len(runs) for key in ('mAP', 'mAP_50', 'mAP_75')]
        seconds = sum(run['seconds_per_epoch'] for run in runs) / len(runs)
        lines.append(f'| {runs[0]["what"]} | ' + ' | '.join(f'{cell:.3f}' for cell in cells) + f' | {seconds:.0f} | {len(runs)} |')
    return '\n'.join(lines)
