"""Pictures of a training reach the visualiser's back-ends, and the training ends as without them."""

import random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmdet_detr_plugin.engine import AttentionVisualizationHook
from mmdet_detr_plugin.engine import attention_visualization_hook as module
from mmdet_detr_plugin.engine.attention_visualization_hook import evaluated

from ..conftest import ROOT

NAMES = dict(detr='detr_r18-half', local='local-detr_r18-half', faster_rcnn='faster-rcnn_r18-half_fpn')


def load(kind: str, shapes_dir, work_dir, **hook) -> Config:
    """Two epochs of one iteration each."""
    cfg = Config.fromfile(ROOT / f'configs/shapes/{NAMES[kind]}_1xb4-10e_shapes.py')
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes_dir}/'
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.update(batch_size=2)
    cfg.train_dataloader.dataset.indices = 2
    cfg.val_evaluator.ann_file = f'{shapes_dir}/annotations/test.json'
    cfg.train_cfg.update(max_epochs=2, val_interval=10)
    cfg.visualizer.name = str(work_dir)  # mmengine keeps one for each name
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    cfg.default_hooks.checkpoint.update(interval=10, save_last=False)
    if hook:
        cfg.custom_hooks.append(dict(type='mmdet_detr_plugin.AttentionVisualizationHook', **hook))
    return cfg


def trained(cfg: Config) -> tuple[Runner, dict]:
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, {name: value.clone() for name, value in runner.model.state_dict().items()}


def pictures(work_dir) -> dict:
    return {path.stem: cv2.imread(str(path)) for path in sorted(work_dir.rglob('vis_image/*.png'))}


def state_of(runner) -> list:
    """Random states, and the mode of every module."""
    numpy = np.random.get_state()
    modes = [part.training for part in runner.model.modules()]
    return [random.getstate(), numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist(), modes]


@pytest.mark.parametrize('kind', ['detr', 'local'])
def test_training_ends_in_the_same_weights_and_pictures_are_written(kind, shapes_dir, tmp_path, monkeypatch):
    draw, states = AttentionVisualizationHook.after_train_epoch, []

    def watched(hook, runner):  # the next epoch is seeded anew, so that its weights alone would not tell
        states.append(state_of(runner))
        draw(hook, runner)
        states.append(state_of(runner))

    monkeypatch.setattr(AttentionVisualizationHook, 'after_train_epoch', watched)
    _, expected = trained(load(kind, shapes_dir, tmp_path / 'plain'))
    runner, found = trained(load(kind, shapes_dir, tmp_path / 'seen', num_images=2))
    assert expected.keys() == found.keys() and all(torch.equal(value, found[name]) for name, value in expected.items())
    assert len(states) == 4 and states[0] == states[1] and states[2] == states[3] and any(states[0][-1])
    assert not any(layer._forward_hooks for layer in runner.model.modules())
    written = pictures(tmp_path / 'seen')
    kinds = ('detections', 'queries', 'attention')
    assert {name.split('-', 1)[0] for name in written} == {'0', '1'}
    assert {tuple(name.rsplit('-', 1)[1].split('_')) for name in written} == {(kind, epoch) for kind in kinds for epoch in '12'}
    assert len(written) == 12 and all(picture.std() > 10 for picture in written.values())
    colours = set(map(tuple, cv2.imread(str(shapes_dir / 'test/000001.png')).reshape(-1, 3).tolist()))
    drawn = written['0-000001-detections_1'].reshape(-1, 3).tolist()
    assert sum(tuple(colour) in colours for colour in drawn) > len(drawn) / 2  # blue is still blue
    first, second = (next(picture for name, picture in written.items() if name.endswith(f'queries_{epoch}')) for epoch in (1, 2))
    assert not np.array_equal(first, second)  # of the weights of their epoch


def test_other_detectors_show_their_detections_alone_and_only_every_interval(shapes_dir, tmp_path):
    trained(load('faster_rcnn', shapes_dir, tmp_path, interval=2, num_images=1))
    assert [name.rsplit('-', 1)[1] for name in pictures(tmp_path)] == ['detections_2']


def test_only_the_main_process_draws(monkeypatch):
    hook, seen = AttentionVisualizationHook(), []
    monkeypatch.setattr(hook, 'every_n_epochs', lambda runner, interval: seen.append(interval))
    for is_main in (False, True):
        monkeypatch.setattr(module, 'is_main_process', lambda is_main=is_main: is_main)
        hook.after_train_epoch(None)  # any look at the runner would fail
        assert seen == [1] * is_main


def test_image_that_cannot_be_drawn_is_reported_and_does_not_end_the_training(shapes_dir, tmp_path, monkeypatch):
    runner, warnings, drawn = Runner.from_cfg(load('detr', shapes_dir, tmp_path, num_images=2)), [], []
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    monkeypatch.setattr(runner.visualizer, 'add_image', lambda name, *args, **kwargs: drawn.append(name.rsplit('-', 1)[1]))
    with torch.no_grad():
        runner.model.bbox_head.fc_cls.bias[0] = float('nan')
    AttentionVisualizationHook(num_images=2).after_train_epoch(runner)
    assert drawn == ['detections'] * 2
    assert len(warnings) == 2 and all('leaves out' in text and 'not finite' in text for text in warnings)


def test_every_module_gets_its_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1), nn.Linear(1, 1)))
    model[1][0].eval()  # as frozen norms are in training
    with pytest.raises(ZeroDivisionError), evaluated(model):
        assert not any(part.training for part in model.modules())
        raise ZeroDivisionError
    assert [part.training for part in model.modules()] == [True, True, True, False, True]


def test_settings_and_missing_validation_are_refused():
    with pytest.raises(ValueError, match='interval, num_images and top must be at least 1, got 0, 4 and 4'):
        AttentionVisualizationHook(interval=0)
    with pytest.raises(ValueError, match='draws validation images, but the config has no val_dataloader; name one'):
        AttentionVisualizationHook().before_train(SimpleNamespace(cfg=Config(dict(val_dataloader=None))))
