"""Configs as users name them become what is trained: same data, same epochs, no mixing of settings in one folder."""

import json

import pytest
from mmengine.config import Config

from mmdet_detr_plugin.comparison.compare import Comparison
from mmdet_detr_plugin.comparison.execution import Launch
from mmdet_detr_plugin.comparison.preparation import load_models, set_epochs, short_names, training_config, write_settings
from mmdet_detr_plugin.config_files import config_path

from ..conftest import ROOT

DETR, FASTER_RCNN = 'detr_r18-half_1xb2-12e_coco320', 'faster-rcnn_r18-half_fpn_1xb2-12e_coco320'


def test_any_data_folder_becomes_the_data_of_every_config(shapes_dir, tmp_path):
    models = load_models([DETR, FASTER_RCNN], shapes_dir, epochs=6, work_dir=tmp_path)
    assert [model.name for model in models] == [DETR, FASTER_RCNN]
    datasets = [model.cfg.train_dataloader.dataset for model in models]
    assert datasets[0].ann_file == datasets[1].ann_file and datasets[0].data_root == f'{tmp_path}/data/'
    assert models[0].cfg.model.bbox_head.num_classes == models[1].cfg.model.roi_head.bbox_head.num_classes == 4
    assert [model.cfg.train_cfg.max_epochs for model in models] == [6, 6]
    again = load_models([DETR], tmp_path / 'data')  # a folder that is converted already is taken as it is
    assert again[0].cfg.train_dataloader.dataset.data_root == f'{tmp_path}/data/'


def test_what_a_conversion_leaves_out_is_told_before_anything_is_trained(shapes_dir, tmp_path):
    source = tmp_path / 'mine'
    (source / 'annotations').mkdir(parents=True)
    for name in ('train', 'test'):
        (source / name).symlink_to(shapes_dir / name)
        content = json.loads((shapes_dir / 'annotations' / f'{name}.json').read_text())
        content['images'].append(dict(content['images'][0], id=10_000, file_name='nowhere.png'))
        (source / 'annotations' / f'{name}.json').write_text(json.dumps(content))
    models = load_models([DETR, FASTER_RCNN], source, work_dir=tmp_path / 'run')
    comparison = Comparison(models, {}, [0], tmp_path / 'run', Launch(), 'mine', '')
    told = [(model, found.finding) for model, found in comparison.preflight() if 'nowhere.png' in found.finding]
    assert len(told) == 1 and told[0][0] == '' and 'missing' in told[0][1] and ': 2, the first' in told[0][1]
    assert load_models([DETR], tmp_path / 'run/data')[0].conversion == ()  # converted before, and told then


def test_data_that_a_report_could_not_count_are_refused_before_training(tmp_path):
    content = Config.fromfile(config_path(DETR)).to_dict()
    inner, test = content['train_dataloader']['dataset'], content['test_dataloader']['dataset']
    (tmp_path / 'train.txt').write_text('000001\n')
    voc = dict(type='VOCDataset', data_root=str(tmp_path), ann_file='train.txt')
    for key, dataset, complaint in (
        (
            'train_dataloader',
            dict(type='ConcatDataset', datasets=[inner, voc]),
            rf"COCO's annotations, .*reads {tmp_path}/train.txt; convert",
        ),
        ('train_dataloader', dict(type='ConcatDataset', datasets=[inner, dict(type='Mine')]), 'reads a data set without ann_file'),
        ('test_dataloader', dict(type='ConcatDataset', datasets=[test, test]), 'one annotation file, got 2'),
    ):
        changed = Config(content)
        changed[key].dataset = dataset
        changed.dump(tmp_path / 'mine.py')
        with pytest.raises(ValueError, match=f'mine.py: .*{complaint}'):
            load_models([tmp_path / 'mine.py'])
    changed = Config(content)
    changed.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    changed.dump(tmp_path / 'mine.py')
    assert load_models([tmp_path / 'mine.py'])[0].cfg.train_dataloader.dataset.type == 'ConcatDataset'


def test_epochs_move_the_schedule_in_proportion():
    cfg = Config.fromfile(ROOT / 'configs/detr/detr_r50_8xb2-150e_coco.py')
    set_epochs(cfg, 15)
    warm_up, drops = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, drops.milestones, drops.end) == (15, [10], 15)
    assert warm_up.end == 500  # iterations
    set_epochs(cfg, 1)
    assert cfg.param_scheduler[1].milestones == []  # a drop on the last epoch's end would do nothing
    with pytest.raises(ValueError, match='at least 1 .* got 0'):
        set_epochs(cfg, 0)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)
    with pytest.raises(ValueError, match='must train by epochs'):
        set_epochs(cfg, 3)


@pytest.mark.parametrize('epochs', [1, 5, 9, 13, 100, 600])
def test_epochs_keep_a_cosine_falling_to_the_end(epochs):
    """RTMDet's schedule, whose second half is a cosine; its hooks count epochs too."""
    cosine = dict(type='CosineAnnealingLR', eta_min=0.0, begin=150, end=300, T_max=150, by_epoch=True)
    warm_up = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000)
    hooks = [dict(type='PipelineSwitchHook', switch_epoch=280), dict(type='EMAHook', begin_epoch=30), dict(type='NumClassCheckHook')]
    cfg = Config(dict(train_cfg=dict(max_epochs=300, val_begin=60), param_scheduler=[warm_up, cosine], custom_hooks=hooks))
    set_epochs(cfg, epochs)
    assert cfg.param_scheduler[0] == warm_up
    for scheduler in cfg.param_scheduler[1:]:
        assert scheduler.end == epochs and scheduler.T_max == scheduler.end - scheduler.begin > 0
    assert len(cfg.param_scheduler) == (1 if epochs == 1 else 2)
    found = cfg.custom_hooks[0].switch_epoch, cfg.custom_hooks[1].begin_epoch, cfg.train_cfg.val_begin
    assert found == tuple(max(1, round(number * epochs / 300)) for number in (280, 30, 60))
    one_cycle = Config(dict(train_cfg=dict(max_epochs=10), param_scheduler=[dict(type='OneCycleLR', total_steps=10)]))
    set_epochs(one_cycle, 4)
    assert one_cycle.param_scheduler[0].total_steps == 4


def test_trained_config_is_evaluated_for_a_curve_and_the_users_is_untouched():
    model = load_models([DETR])[0]
    before = model.cfg.pretty_text
    cfg = training_config(model)
    assert cfg.train_cfg.val_interval == 2 and cfg.custom_hooks[-1].type == 'mmdet_detr_plugin.MatchingRecordHook'
    assert model.cfg.pretty_text == before
    assert 'MatchingRecordHook' not in training_config(load_models([FASTER_RCNN])[0]).pretty_text
    without = load_models([DETR])[0]
    without.cfg.update(val_dataloader=None, val_evaluator=None, val_cfg=None)
    assert 'MatchingRecordHook' not in training_config(without).pretty_text  # it looks at validation images
    model.cfg.optim_wrapper.accumulative_counts = 8  # which mmengine's scaling of the rate does not know of
    base = model.cfg.auto_scale_lr.base_batch_size
    assert training_config(model).auto_scale_lr.base_batch_size * 8 == base == model.cfg.auto_scale_lr.base_batch_size
    model.cfg.pop('auto_scale_lr')
    assert training_config(model).auto_scale_lr.base_batch_size == model.cfg.train_dataloader.batch_size


def test_trained_config_saves_and_logs_what_a_report_needs():
    """A config with mmdet's own runtime, which logs elsewhere and by iterations."""
    model = load_models([DETR])[0]
    assert training_config(model).visualizer == model.cfg.visualizer
    model.cfg.visualizer.vis_backends = [dict(type='TensorboardVisBackend')]
    model.cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=500)
    model.cfg.custom_hooks = []
    cfg = training_config(model)
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    assert cfg.default_hooks.checkpoint == dict(type='mmdet_detr_plugin.SafeCheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=1)
    assert 'mmdet_detr_plugin.PlainCheckpointHook' in [hook.type for hook in cfg.custom_hooks]
    model.cfg.pop('visualizer')
    assert training_config(model).visualizer.vis_backends == [dict(type='LocalVisBackend')]


def test_runs_that_started_from_other_weights_are_not_gone_on_with(tmp_path):
    model, files = load_models([DETR])[0], [tmp_path / name for name in ('detr.pth', 'backbone.pth', 'boxes.json')]
    for file in files:
        file.write_text('as it was')
    model.cfg.load_from, model.cfg.model.backbone.init_cfg = str(files[0]), dict(type='Pretrained', checkpoint=str(files[1]))
    model.cfg.test_evaluator = [dict(type='CocoMetric', ann_file=str(files[2])), dict(type='CocoPanopticMetric')]
    write_settings([model], {}, tmp_path / 'run')
    for file in files:
        file.write_text('made anew')
        with pytest.raises(ValueError, match=rf'{file.name} changed'):
            write_settings([model], {}, tmp_path / 'run')
        file.write_text('as it was')
    write_settings([model], {}, tmp_path / 'run')


def test_folder_of_other_settings_is_refused_and_stays(tmp_path):
    models = load_models([DETR, FASTER_RCNN])
    files = write_settings(models, dict(processes=1), tmp_path)
    assert Config.fromfile(files[DETR]).model.to_dict() == models[0].cfg.model.to_dict()
    assert write_settings(models, dict(processes=1), tmp_path) == files
    longer = load_models([DETR], epochs=20)
    kept = files[DETR].read_text()
    with pytest.raises(ValueError, match=f'other settings .*{DETR} changed.*choose another|{DETR} changed.*Choose another'):
        write_settings(longer, dict(processes=1), tmp_path)
    with pytest.raises(ValueError, match='processes changed'):
        write_settings(models, dict(processes=2), tmp_path)
    assert files[DETR].read_text() == kept
    more = load_models(['local-detr_r18-half_1xb2-12e_coco320'])
    write_settings(more, dict(processes=1), tmp_path)  # another model may join
    write_settings(models, dict(processes=1), tmp_path)


def test_runs_on_annotations_that_have_changed_are_not_gone_on_with(shapes_dir, tmp_path):
    """Finished runs were trained and evaluated on other objects, or other images under the same ids."""
    models = load_models([DETR], shapes_dir, work_dir=tmp_path)
    write_settings(models, dict(processes=1), tmp_path)
    write_settings(load_models([DETR], shapes_dir, work_dir=tmp_path), dict(processes=1), tmp_path)  # converted anew: the same
    for split in ('train', 'val'):
        path = tmp_path / 'data' / 'annotations' / f'{split}.json'
        before = path.read_text()
        content = json.loads(before)
        path.write_text(json.dumps(content | dict(annotations=content['annotations'][1:])))
        with pytest.raises(ValueError, match=f'holds a comparison with other settings .*annotations/{split}.json changed'):
            write_settings(models, dict(processes=1), tmp_path)
        path.write_text(before)
    write_settings(models, dict(processes=1), tmp_path)


def test_data_that_has_changed_replaces_nothing(shapes_dir, tmp_path):
    """What the finished runs of a folder were trained on stays there, when new images would come to its splits."""
    source = tmp_path / 'mine'
    source.mkdir()
    for name in ('annotations', 'train', 'test'):
        (source / name).symlink_to(shapes_dir / name)
    load_models([DETR], source, work_dir=tmp_path / 'run')
    files = {path: path.read_bytes() for path in (tmp_path / 'run/data/annotations').iterdir()}
    assert len(files) == 2
    load_models([DETR], source, work_dir=tmp_path / 'run')
    (source / 'annotations').unlink()
    (source / 'annotations').mkdir()
    for name in ('train.json', 'test.json'):
        content = json.loads((shapes_dir / 'annotations' / name).read_text())
        (source / 'annotations' / name).write_text(json.dumps(content | dict(annotations=content['annotations'][1:])))
    with pytest.raises(ValueError, match='mine has changed since it was converted .* Nothing was replaced; choose another --work-dir'):
        load_models([DETR], source, work_dir=tmp_path / 'run')
    assert {path: path.read_bytes() for path in (tmp_path / 'run/data/annotations').iterdir()} == files
    load_models([DETR], source, work_dir=tmp_path / 'other')


def test_names_lose_what_they_share_at_their_end():
    assert short_names([DETR, FASTER_RCNN]) == {DETR: 'detr_r18-half', FASTER_RCNN: 'faster-rcnn_r18-half_fpn'}
    assert short_names(['detr_r50_coco', 'detr_r50_coco2']) == {name: name for name in ('detr_r50_coco', 'detr_r50_coco2')}
    assert short_names(['detr_coco', 'coco']) == {'detr_coco': 'detr_coco', 'coco': 'coco'}
    assert short_names(['one_two']) == {'one_two': 'one_two'}


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f'{DETR}: runs are kept'):
        load_models([DETR, DETR])
    with pytest.raises(FileNotFoundError, match='no config'):
        load_models(['nothing'])
    (tmp_path / 'partial.py').write_text('model = dict(type="X")')
    with pytest.raises(ValueError, match='no complete training config: it has no train_dataloader'):
        load_models([tmp_path / 'partial.py'])
    (tmp_path / 'voc.py').write_text(
        f"_base_ = {str(ROOT / 'configs/small' / DETR)!r} + '.py'\ntest_evaluator = dict(_delete_=True, type='VOCMetric')"
    )
    with pytest.raises(ValueError, match="must be one CocoMetric with metric 'bbox', got .*VOCMetric"):
        load_models([tmp_path / 'voc.py'])
