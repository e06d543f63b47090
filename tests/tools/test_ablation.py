"""The ablation command, and with it that the recipe learns where plain DETR does not."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmdet_detr_plugin.ablation import PLANS, Run, run_plan, training
from mmdet_detr_plugin.config_files import config_path, flat
from mmdet_detr_plugin.datasets.shapes import write_split

from ..conftest import ROOT


def test_local_detr_beats_plain_detr_by_far(tmp_path, monkeypatch, capsys):
    """120 iterations each, warmed up for 40, evaluated on 50 other images; about 100 seconds. Results are kept and not made again."""
    write_split(tmp_path / 'shapes', seed=0, split='train', count=240)
    write_split(tmp_path / 'shapes', seed=0, split='test', count=50)
    runs = [run for run in PLANS['images'] if run.name in ('detr-400', 'local-400')]
    warm_soon = [replace(run, options=run.options | {'param_scheduler.0.end': 40}) for run in runs]
    monkeypatch.setitem(PLANS, 'images', warm_soon)
    monkeypatch.chdir(tmp_path)

    def ablate(epochs: int) -> str:
        args = f'images --runs detr-400 local-400 --epochs {epochs} --data shapes --out results --work-dir work'
        monkeypatch.setattr(sys, 'argv', ['ablate.py', *args.split()])
        runpy.run_path(str(ROOT / 'tools/ablate.py'), run_name='__main__')
        return capsys.readouterr().out

    first = ablate(2)
    plain, local = (json.loads((tmp_path / 'results' / f'{name}-seed0.json').read_text()) for name in ('detr-400', 'local-400'))
    print(plain['metrics'], local['metrics'])
    assert local['metrics']['mAP'] > 0.02 and local['metrics']['mAP'] > 20 * plain['metrics']['mAP']
    assert local['seed'] == 0 and local['seconds_per_epoch'] > 0 and local['machine']['torch']
    capsys.readouterr()
    with pytest.raises(SystemExit, match='was made with'):
        ablate(1)
    made = (tmp_path / 'results' / 'local-400-seed0.json').stat().st_mtime_ns
    assert ablate(2) == first
    assert (tmp_path / 'results' / 'local-400-seed0.json').stat().st_mtime_ns == made
    assert '| plain DETR, 400 images | 0.0' in first and '| LocalDETR, 400 images | 0.' in first


def test_aids_are_measured_on_a_data_set_of_ones_own(tmp_path):
    """Denoising queries among them, which know how many classes there are."""
    for split in ('train', 'test'):
        write_split(tmp_path / 'mine', seed=0, split=split, count=8)
    (run,) = [run for run in PLANS['aids'] if run.name == 'aided-denoising']
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    (result,) = run_plan([run], tmp_path / 'results', tmp_path / 'work', options, data=tmp_path / 'mine', say=lambda text: None)
    num_objects = len(json.loads((tmp_path / 'mine' / 'annotations' / 'train.json').read_text())['annotations'])
    assert result['common'] == options | dict(data='mine', train_images=8, train_objects=num_objects) and result['metrics']['mAP'] >= 0
    with pytest.raises(ValueError, match="was made with .*'mine'.*, this run has those of the configs"):
        run_plan([run], tmp_path / 'results', tmp_path / 'work', say=lambda text: None)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        run_plan([run], tmp_path / 'other', tmp_path / 'work', data=tmp_path / 'nowhere', say=lambda text: None)


@pytest.mark.parametrize('plan', PLANS)
def test_every_run_builds(plan):
    """A name that is misspelt would add a key that no class takes."""
    assert len({run.name for run in PLANS[plan]}) == len(PLANS[plan])
    for run in PLANS[plan]:
        cfg = Config.fromfile(config_path(run.config))
        cfg.merge_from_dict(flat(run.options))
        wrapper = build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper)
        for scheduler in cfg.param_scheduler:
            PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=wrapper))


def test_trainings_and_results_of_other_settings_or_data_are_refused(tmp_path, monkeypatch):
    """In one work folder, with as many iterations an epoch: a run would go on from another's weights. Trainings are stand-ins."""
    commands = []

    def trained(command, **kwargs):
        commands.append(command)
        work_dir = Path(command[command.index('--work-dir') + 1])
        log = work_dir / '1' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text('{"time": 0.5, "iter": 2, "epoch": 1}\n{"coco/bbox_mAP": 0.25, "step": 1}\n')
        (work_dir / 'last_checkpoint').write_text('epoch_1.pth')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(training, 'subprocess', SimpleNamespace(run=trained))
    for seed, name in enumerate(('mine', 'other')):
        for split in ('train', 'test'):
            write_split(tmp_path / name, seed=seed, split=split, count=4)
    run = Run('short', 'detr_r18-half_1xb2-12e_coco320', 'short', {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1})

    def go(run, out, data='mine'):
        return run_plan([run], tmp_path / out, tmp_path / 'work', data=tmp_path / data, say=lambda text: None)

    (result,) = go(run, 'results')
    (tmp_path / 'results' / 'short-seed0.json').unlink()  # as after an interruption
    assert go(run, 'results')[0]['metrics'] == result['metrics'] == dict(mAP=0.25)
    assert ['--resume' in command for command in commands] == [False, True]
    faster = replace(run, options=run.options | {'optim_wrapper.optimizer.lr': 0.1})
    for arguments in ((run, 'of other data', 'other'), (faster, 'of another rate')):
        with pytest.raises(ValueError, match='short-seed0 holds a training with other settings or data'):
            go(*arguments)
        assert not list((tmp_path / arguments[1]).iterdir())
    annotations = tmp_path / 'mine' / 'annotations' / 'train.json'
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(content | dict(annotations=content['annotations'][1:])))  # the same paths, other objects
    with pytest.raises(ValueError, match='short-seed0 holds a training with other settings or data'):
        go(run, 'of_other_objects')
    annotations.write_text(json.dumps(content))
    path, result = tmp_path / 'results' / 'short-seed0.json', json.loads((tmp_path / 'results' / 'short-seed0.json').read_text())
    for name in ('recipe', 'train_annotations', 'val_annotations'):  # a base config that was edited, labels that were corrected
        path.write_text(json.dumps(result | dict(made_of=result['made_of'] | {name: 'another digest'})))
        with pytest.raises(ValueError, match=f'short-seed0.json was made with another {name.replace("_", " ")} than this run has'):
            go(run, 'results')
    path.write_text(json.dumps({key: value for key, value in result.items() if key != 'made_of'}))  # of an earlier version
    assert go(run, 'results')[0]['metrics'] == result['metrics']
    for changed in (faster, replace(run, config='detr_r18-half_1xb2-40e_coco320')):
        with pytest.raises(ValueError, match=r'short-seed0.json was made with .*, this run has .*remove that file'):
            go(changed, 'results')
    assert len(commands) == 2


def test_failed_run_leaves_no_result_and_says_why(tmp_path):
    run = Run('broken', 'detr_r18-half_1xb4-10e_shapes', 'broken', {'model.neck.embed_dims': 255})
    with pytest.raises(RuntimeError, match=r'broken: .*failed:[\s\S]*num_feats'):
        run_plan([run], tmp_path / 'results', tmp_path / 'work', say=lambda text: None)
    assert not list((tmp_path / 'results').iterdir())


def test_planned_configs_exist_and_names_are_unique():
    for runs in PLANS.values():
        assert len({run.name for run in runs}) == len(runs)
        for run in runs:
            config_path(run.config)


def test_every_number_of_images_gets_about_the_same_iterations():
    for run in PLANS['images']:
        cfg = Config.fromfile(config_path(run.config))
        cfg.merge_from_dict(run.options)
        iterations = cfg.train_cfg.max_epochs * math.ceil(cfg.train_dataloader.dataset.indices / cfg.train_dataloader.batch_size)
        (drop,) = cfg.param_scheduler[1].milestones
        assert (
            iterations == (1040 if run.name.endswith('-50') else 1000)
            and cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs
            and 0.75 <= drop / cfg.train_cfg.max_epochs <= 0.8
        )
