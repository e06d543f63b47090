"""Trains the runs of a plan: goes on after an interruption, and takes no result for another one's."""

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from ..benchmark.results import machine
from ..comparison.run_records import last_scalars, resume_option, seconds_per_epoch
from ..config_files import annotation_file, config_path, configs_folder, flat, innermost_dataset, mmdet_train_script
from ..datasets.conversion import converted_folder
from ..datasets.data_configs import config_for_dataset
from ..files import sha256_of, write_json
from ..preflight.folder import conversion_findings
from .plans import OWN_DATA, Run


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
        source, name = data, data.resolve().name
        data, records = converted_folder(data, work_dir)
        for found in conversion_findings(source, records.notes if records else {}):
            say(found.finding)
        content = json.loads((data / 'annotations' / 'train.json').read_text())
        common |= dict(data=name, train_images=len(content['images']), train_objects=len(content['annotations']))
    digest = functools.cache(sha256_of)  # all runs are of the same files
    for run in runs:
        for seed in seeds:
            path = out / f'{run.name}-seed{seed}.json'
            text, values, cfg = _config(run, seed, options or {}, data)
            made_of = _made_of(cfg, digest)
            if not path.is_file():
                say(f'{run.name}, seed {seed}: training')
                out.mkdir(parents=True, exist_ok=True)
                folder = work_dir / f'{run.name}-seed{seed}'
                _claim(folder, cfg, made_of)
                found = _train(run, folder, text, values)
                about = dict(name=run.name, what=run.what, config=run.config, options=run.options, seed=seed)
                write_json(path, about | found | dict(common=common, made_of=made_of))
            result = json.loads(path.read_text())
            _check_made_alike(path, result, run, common, made_of)
            results.append(result)
    return results


def _config(run: Run, seed: int, options: dict, data: Path | None) -> tuple[str, dict, Config]:
    """Text of a config, what replaces its values, and both together."""
    text = config_for_dataset(Path(config_path(run.config)), data) if data is not None else f'_base_ = {config_path(run.config)!r}\n'
    values = flat({**run.options, **options, 'randomness.seed': seed})
    cfg = Config.fromstring(text, '.py')
    if data is not None:
        values |= {key: len(cfg.metainfo.classes) for key in values if key.endswith('.num_classes')}
    cfg.merge_from_dict(values)
    return text, values, cfg


def _made_of(cfg: Config, digest: Callable[[Path], str]) -> dict[str, str]:
    """Digests of what a result depends on: the recipe, and the annotations where they are there. Paths and seeds are no part of it."""
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if not hook.type.startswith('mmdet_detr_plugin.')]  # ours change no result
    recipe = {key: cfg.get(key) for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg')}
    loaders = {split: cfg[f'{split}_dataloader'] for split in ('train', 'val')}
    recipe |= {split: (loader.batch_size, innermost_dataset(loader).pipeline) for split, loader in loaders.items()}
    recipe_text = json.dumps(Config(dict(**recipe, hooks=hooks)).to_dict(), sort_keys=True, default=str)
    made_of = dict(recipe=hashlib.sha256(recipe_text.encode()).hexdigest())
    files = {split: annotation_file(loader) for split, loader in loaders.items()}
    return made_of | {f'{split}_annotations': digest(file) for split, file in files.items() if file.is_file()}


def _check_made_alike(path: Path, result: dict, run: Run, common: dict, made_of: dict) -> None:
    """A result that is kept must be that of this run; those of earlier versions have no digests."""
    asked = json.loads(json.dumps(dict(config=run.config, options=run.options, common=common)))  # tuples are lists in the file
    for key, value in asked.items():
        if result[key] != value:
            raise ValueError(
                f'{path} was made with {result[key] or "the settings of the configs"}, this run has {value or "those of the configs"}; '
                'write to another folder (--out), or remove that file to train again'
            )
    known = result.get('made_of', {})
    if changed := [name.replace('_', ' ') for name, digest in made_of.items() if known.get(name, digest) != digest]:
        raise ValueError(
            f'{path} was made with another {" and ".join(changed)} than this run has; write to another folder (--out), or remove that file '
            'and the folder of its training to train again'
        )


def _train(run: Run, work_dir: Path, text: str, values: dict) -> dict:
    config = work_dir / 'trained.py'
    config.write_text(text)
    command = [sys.executable, '-W', 'ignore', str(mmdet_train_script()), str(config), '--work-dir', str(work_dir)]
    command += [*resume_option(work_dir), '--cfg-options', *(f'{key}={value}' for key, value in values.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{run.name}: {" ".join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}')
    metrics = {key.removeprefix('coco/bbox_'): value for key, value in last_scalars(work_dir).items() if key.startswith('coco/bbox_mAP')}
    return dict(
        metrics=metrics,
        seconds_per_epoch=round(seconds_per_epoch(work_dir), 1),
        machine=machine('cuda' if torch.cuda.is_available() else 'cpu'),
    )


def _claim(work_dir: Path, cfg: Config, made_of: dict) -> None:
    """Note what a folder's training is of, so that nothing else is ever taken for its beginning."""
    asked = dict(config=json.loads(json.dumps(cfg.to_dict(), default=str)), **made_of)
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
