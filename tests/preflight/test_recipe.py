"""Each fault of a recipe, planted in a shipped config: its severity, and the words and numbers that must be said."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_detr_plugin.preflight import ERROR, NOTE, WARNING, findings, read_data, recipe_findings
from mmdet_detr_plugin.preflight.folder import config_for_folder
from mmdet_detr_plugin.preflight.schedule import planned
from mmdet_detr_plugin.preflight.splits import ConfigData

from ..conftest import ROOT
from .planting import config, edit, plant_data, saying

DETR = 'shapes/detr_r18-half_1xb4-10e_shapes.py'
FASTER_RCNN = 'shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py'
LOCAL = 'shapes/local-detr_r18-half_1xb4-10e_shapes.py'
COCO = 'detr/detr_r50_8xb2-150e_coco.py'
FROZEN = dict(model__backbone__norm_cfg__requires_grad=False)
SWIN = dict(_delete_=True, type='mmdet.SwinTransformer', frozen_stages=2)
MULTI_STEP = dict(type='MultiStepLR', by_epoch=True, begin=0, end=10, gamma=0.1)
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.2), _delete_=True)


@pytest.fixture(scope='module')
def root(shapes_dir, tmp_path_factory):
    return plant_data(shapes_dir, tmp_path_factory.mktemp('recipe') / 'shapes')


def found(cfg, severity, *words):
    """The one finding with these words, of this severity."""
    all_found = recipe_findings(cfg)
    matches = saying(all_found, *words)
    assert len(matches) == 1, [item.finding for item in all_found]
    assert matches[0].severity == severity and matches[0].area == 'recipe' and matches[0].advice


@pytest.mark.parametrize(
    'name, changes, severity, words',
    [
        (DETR, {}, WARNING, ['10 epochs = 40 iterations on 16 images', '300000', '10000', 'facebookresearch/detr', 'fine-tune']),
        (DETR, {}, NOTE, ['no pretrained weights', 'load_from']),
        (
            DETR,
            {**FROZEN, 'model__backbone__zero_init_residual': True},
            ERROR,
            ['batch norm of ResNetDC5 (depth 18)', '0 gradients', 'zero_init_residual=False'],
        ),
        (DETR, {**FROZEN, 'model__backbone__zero_init_residual': False}, WARNING, ['frozen without pretrained', 'normalises nothing']),
        (DETR, dict(model__backbone__norm_eval=True), WARNING, ['norm_eval', 'True without pretrained weights']),
        (DETR, dict(model__backbone__frozen_stages=1), ERROR, ['frozen_stages is 1', 'first 2 stages', 'random values']),
        (DETR, dict(model__backbone__zero_init_residual=True), NOTE, ['zero_init_residual is True', 'start at 0']),
        (DETR, dict(train_dataloader__batch_size=2), NOTE, ['batch norm is trained on 2 images', 'model.backbone', 'GN']),
        (DETR, dict(load_from='nowhere.pth'), ERROR, ['load_from starts from nowhere.pth', 'does not exist', 'correct the path']),
        (DETR, dict(load_from='https://x.org/nothing.pth'), NOTE, ['https://x.org/nothing.pth', 'not downloaded yet']),
        (DETR, dict(optim_wrapper__clip_grad=None), WARNING, ['clip_grad is not set', 'max_norm=0.1']),
        (DETR, dict(randomness=dict(_delete_=True)), ERROR, ['randomness.seed is not set', 'EpochSeedHook', 'dict(seed=0)']),
        (DETR, dict(randomness=dict(_delete_=True), custom_hooks=[]), WARNING, ['randomness.seed is not set', 'no run can be repeated']),
        (DETR, dict(model__neck__num_queries=300), NOTE, ['model.neck.num_queries is 300', 'the fullest image has']),
        (DETR, dict(auto_scale_lr=None, optim_wrapper__optimizer__lr=0.1), WARNING, ['AdamW learning rate is 0.1', 'try 0.0001']),
        (FASTER_RCNN, dict(auto_scale_lr=None, optim_wrapper=SGD), WARNING, ['SGD learning rate is 0.2 for 4', 'try 0.005']),
        (LOCAL, dict(auto_scale_lr__base_batch_size=16), NOTE, ['meant for 16 images', 'one process has 4', 'start 4 processes']),
        (LOCAL, dict(auto_scale_lr__base_batch_size=18), WARNING, ['meant for 18 images', '--auto-scale-lr']),
        (
            LOCAL,
            dict(auto_scale_lr__base_batch_size=16, optim_wrapper__accumulative_counts=2),
            WARNING,
            ['meant for 16 images', 'one process has 8 in the 2 iterations of an update', 'counts as 4', 'base_batch_size=8'],
        ),
        (LOCAL, {}, WARNING, ['warm-up takes 200 iterations, the training 40', 'set end to 2']),
        (LOCAL, dict(train_cfg__max_epochs=100), NOTE, ['warm-up takes 200 iterations, the training 400', '50 %']),
        (
            LOCAL,
            dict(auto_scale_lr__base_batch_size=16, train_cfg__max_epochs=100),
            NOTE,
            ['warm-up takes 200 iterations, the training 100 on 4 processes', 'on one process the training takes about 400'],
        ),
        (
            LOCAL,
            dict(auto_scale_lr__base_batch_size=16),
            WARNING,
            ['warm-up takes 200 iterations, the training 10 on 4 processes', 'never reached: set end to'],
        ),
        (LOCAL, dict(model__backbone=SWIN), ERROR, ['frozen_stages is 2 without pretrained weights', 'first 3 stages']),
        (LOCAL, dict(param_scheduler=[{**MULTI_STEP, 'milestones': [8, 10, 30]}]), WARNING, ['milestones [10, 30]', '(10 epochs)']),
        (LOCAL, dict(param_scheduler=[{**MULTI_STEP, 'milestones': [8], 'begin': 12}]), WARNING, ['begins at 12', 'after 10 epochs']),
        (LOCAL, dict(param_scheduler=[dict(type='CosineAnnealingLR', T_max=50)]), WARNING, ['T_max is 50', 'after 10 epochs']),
        (LOCAL, dict(train_cfg__val_interval=20), WARNING, ['val_interval is 20', 'after 10 epochs', 'only the end', 'set it to 1']),
        (LOCAL, dict(train_cfg__val_begin=11), WARNING, ['val_begin is 11', 'never evaluated']),
        (LOCAL, dict(model=None, train_cfg=None), ERROR, ['no model and no train_cfg', '2 of 3']),
        (LOCAL, dict(param_scheduler=[7]), WARNING, ['the check "schedule" was not made', 'AttributeError']),
    ],
)
def test_a_planted_fault_is_named(root, name, changes, severity, words):
    found(config(root, name, **changes), severity, *words)


@pytest.mark.parametrize('name', [DETR, LOCAL, FASTER_RCNN])
def test_a_long_enough_training_on_enough_images_gives_no_warning(root, name):
    cfg = config(root, name, train_cfg=dict(max_epochs=100_000), param_scheduler=[])
    assert [item for item in recipe_findings(cfg) if item.severity != NOTE] == []


def test_pretrained_weights_make_frozen_layers_right(root):
    cfg = config(root, DETR, **FROZEN, model__backbone__frozen_stages=1, model__backbone__norm_eval=True)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    assert not saying(recipe_findings(cfg), 'frozen') and not saying(recipe_findings(cfg), 'no pretrained')
    cfg.model.backbone.init_cfg = [cfg.model.backbone.init_cfg, dict(type='Normal', layer='Linear')]
    assert not saying(recipe_findings(cfg), 'frozen') and not saying(recipe_findings(cfg), 'no pretrained')


def test_fine_tuning_needs_no_long_schedule(root, tmp_path):
    (tmp_path / 'detr.pth').touch()
    assert not saying(recipe_findings(config(root, DETR, load_from=str(tmp_path / 'detr.pth'))), '300000')


def test_many_images_turn_the_warning_about_length_into_a_note(root):
    cfg = config(root, DETR)
    data = read_data(cfg)
    data.training()[0].repeats = 1000
    (note,) = saying(recipe_findings(cfg, data), '300000')
    assert note.severity == NOTE and '10 epochs = 40000 iterations on 16000 images' in note.finding and '34.8' in note.advice


def resized(cfg, loader, scale):
    cfg[f'{loader}_dataloader'].dataset.pipeline = [dict(type='Resize', scale=scale, keep_ratio=True)]


def test_padding_that_only_evaluation_sees_and_the_reverse(root):
    edit(root, 'test', lambda content: content['images'][0].update(width=100))
    cfg = config(root, DETR)
    found(cfg, WARNING, 'batches of 4 in training, of 8 in val and test', 'evaluation pads images, training never does', '#217')
    cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 1
    assert not saying(recipe_findings(cfg), 'pads')
    cfg.train_dataloader.dataset.pipeline.append(dict(type='RandomCrop', crop_size=(64, 64)))
    found(cfg, NOTE, 'batches of 4 in training, of 1 in val and test', 'training pads images, evaluation never does')
    cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 8
    assert not saying(recipe_findings(cfg), 'pads')  # both do
    cfg.train_dataloader.batch_size = 1
    found(cfg, WARNING, 'batches of 1 in training', 'evaluation pads images, training never does')
    edit(root, 'test', lambda content: content['images'][0].update(width=128))
    assert not saying(recipe_findings(cfg), 'pads')  # all images are of one size


def test_evaluation_at_another_scale_than_training(root):
    cfg = config(root, DETR)
    resized(cfg, 'test', (512, 512))
    resized(cfg, 'val', (512, 512))
    found(cfg, WARNING, 'val and test scales an image of 128 x 128 by 4.00, training by 1.00')
    cfg.train_dataloader.dataset.pipeline = [dict(type='RandomChoiceResize', scales=[(256, 256), (384, 384), (480, 480)], keep_ratio=True)]
    assert not saying(recipe_findings(cfg), 'scales an image')  # 4.00 is within a quarter of 3.75
    resized(cfg, 'val', (128, 128))
    found(cfg, WARNING, 'val scales an image of 128 x 128 by 1.00, training by 2.00 to 3.75')


@pytest.mark.parametrize(
    'changes, iterations, processes',
    [
        ({}, 40, 1),
        (dict(train_dataloader__batch_size=3), 60, 1),  # 16 / 3, the last batch is smaller
        (dict(train_dataloader__batch_size=3, train_dataloader__drop_last=True), 50, 1),
        (dict(auto_scale_lr__base_batch_size=8), 20, 2),
        (dict(auto_scale_lr__base_batch_size=8, optim_wrapper__accumulative_counts=2), 40, 1),
        (dict(train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=77)), 77, 1),
    ],
)
def test_planned_iterations(root, changes, iterations, processes):
    cfg = config(root, **changes)
    plan = planned(cfg.to_dict(), read_data(cfg))
    assert (plan.iterations, plan.processes) == (iterations, processes)


def test_published_recipes_on_coco_get_notes_only():
    for name in (COCO, 'faster_rcnn/faster-rcnn_r50_fpn_8xb2-1x_coco.py', 'local_detr/local-detr_r50_8xb2-1x_coco.py'):
        cfg = Config.fromfile(ROOT / 'configs' / name)
        assert {item.severity for item in recipe_findings(cfg, ConfigData())} == {NOTE}, name


@pytest.mark.parametrize('name', [f'shapes/{path.name}' for path in sorted((ROOT / 'configs' / 'shapes').glob('*.py'))])
def test_configs_of_the_shapes_have_no_error(root, name):
    assert not [item for item in findings(config(root, name)) if item.severity == ERROR]


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'configs' / 'small').glob('*-12e_*.py')))
def test_configs_for_small_data_have_no_error_on_a_converted_folder(shapes_dir, tmp_path, name):
    cfg, _ = config_for_folder(shapes_dir, tmp_path, Path(name))
    assert [split.name for split in read_data(cfg).splits] == ['train', 'val and test']
    assert not [item for item in findings(cfg) if item.severity == ERROR]
