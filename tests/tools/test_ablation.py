"""The ablation command, and with it that the recipe learns where plain DETR does not."""

import json
import subprocess
import sys

import pytest
from mmdet.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmdet_detr_plugin.comparison.ablation import PLANS, Run, run_plan
from mmdet_detr_plugin.config_files import config_path, flat
from mmdet_detr_plugin.datasets.shapes import write_split

from ..conftest import ROOT


def ablate(tmp_path, *args) -> str:
    command = [sys.executable, str(ROOT / 'tools/ablate.py'), 'images', '--out', 'results', '--work-dir', 'work', *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_local_detr_beats_plain_detr_by_far(tmp_path):
    """Two epochs of 400 images, evaluated on 50 others; about 80 seconds. Results are kept and not made again."""
    write_split(tmp_path / 'shapes', seed=0, split='train', count=400)
    write_split(tmp_path / 'shapes', seed=0, split='test', count=50)
    args = ('--runs', 'detr-400', 'local-400', '--epochs', '2', '--data', 'shapes')
    first = ablate(tmp_path, *args)
    plain, local = (json.loads((tmp_path / 'results' / f'{name}-seed0.json').read_text()) for name in ('detr-400', 'local-400'))
    print(plain['metrics'], local['metrics'])
    assert local['metrics']['mAP'] > 0.02 and local['metrics']['mAP'] > 20 * plain['metrics']['mAP']
    assert local['seed'] == 0 and local['seconds_per_epoch'] > 0 and local['machine']['torch']
    with pytest.raises(AssertionError, match='was made with'):
        ablate(tmp_path, *args[:3], '--epochs', '1', '--data', 'shapes')
    made = (tmp_path / 'results' / 'local-400-seed0.json').stat().st_mtime_ns
    assert ablate(tmp_path, *args) == first
    assert (tmp_path / 'results' / 'local-400-seed0.json').stat().st_mtime_ns == made
    assert '| plain DETR, 400 images | 0.0' in first and '| LocalDETR, 400 images | 0.' in first


def test_aids_are_measured_on_a_data_set_of_ones_own(tmp_path):
    """Denoising queries among them, which know how many classes there are."""
    for split in ('train', 'test'):
        write_split(tmp_path / 'mine', seed=0, split=split, count=8)
    (run,) = [run for run in PLANS['aids'] if run.name == 'aided-denoising']
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    (result,) = run_plan([run], tmp_path / 'results', tmp_path / 'work', options, data=tmp_path / 'mine', say=lambda text: None)
    assert result['common'] == options | dict(data='mine') and result['metrics']['mAP'] >= 0
    with pytest.raises(ValueError, match='was made with .*mine.*, this run has those of the configs'):
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


def test_every_number_of_images_gets_the_same_iterations():
    for run in PLANS['images']:
        cfg = Config.fromfile(config_path(run.config))
        cfg.merge_from_dict(run.options)
        iterations = cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.indices / cfg.train_dataloader.batch_size
        (drop,) = cfg.param_scheduler[1].milestones
        assert (
            iterations == 1000 and cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs and 0.75 <= drop / cfg.train_cfg.max_epochs <= 0.8
        )
