"""The audit sees every kind of difference that would make a comparison unfair, and lets pass what may differ."""

import copy

import pytest
from mmengine.config import Config

from mmdet_detr_plugin.comparison.audit import ALLOWED, EQUAL, UNFAIR, audit, delivered_item, is_fair, text_table

from ..conftest import ROOT

DETR, FASTER_RCNN = 'detr/detr_r50_8xb2-1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_8xb2-1x_coco.py'


@pytest.fixture(scope='module')
def originals() -> list[Config]:
    return [Config.fromfile(ROOT / 'configs' / name) for name in (DETR, FASTER_RCNN)]


@pytest.fixture
def pair(originals) -> list[Config]:
    return copy.deepcopy(originals)


def differing(cfgs) -> dict[str, str]:
    return {item.item: item.verdict for item in audit(cfgs) if item.verdict != EQUAL}


def test_shipped_pair_is_fair_and_names_what_may_differ(pair):
    assert differing(pair) == dict.fromkeys(('model', 'pad divisor', 'backbone', 'optimiser, rates, clipping'), ALLOWED)
    assert is_fair(audit(pair))


def test_config_is_equal_to_itself_and_untouched(pair):
    before = copy.deepcopy(pair[0].to_dict())
    assert differing([pair[0], pair[0]]) == {}
    assert pair[0].to_dict() == before


PLANTED = {
    'train pipeline': lambda cfg: cfg.train_dataloader.dataset.pipeline[2].update(prob=0.25),
    'test pipeline': lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(2, dict(type='RandomFlip', prob=1.0)),
    'image scale': lambda cfg: cfg.val_dataloader.dataset.pipeline[1].update(scale=(1000, 600)),
    'normalisation': lambda cfg: cfg.model.data_preprocessor.update(mean=[0.0, 0.0, 0.0]),
    'channel order': lambda cfg: cfg.model.data_preprocessor.update(bgr_to_rgb=False),
    'batch augmentation': lambda cfg: cfg.model.data_preprocessor.update(batch_augments=[dict(type='BatchSyncRandomResize')]),
    'training data': lambda cfg: cfg.train_dataloader.dataset.update(ann_file='annotations/other.json'),
    'evaluation data': lambda cfg: cfg.test_dataloader.dataset.data_prefix.update(img='test2017/'),
    'images without objects': lambda cfg: cfg.train_dataloader.dataset.update(filter_cfg=dict(filter_empty_gt=True)),
    'order and batching': lambda cfg: cfg.train_dataloader.pop('batch_sampler'),
    'batch size': lambda cfg: cfg.train_dataloader.update(batch_size=4),
    'epochs or iterations': lambda cfg: cfg.train_cfg.update(max_epochs=24),
    'schedule shape with warm-up': lambda cfg: cfg.param_scheduler[0].update(end=1000),
    'EMA': lambda cfg: cfg.custom_hooks.append(dict(type='EMAHook')),
    'other hooks': lambda cfg: cfg.custom_hooks.append(dict(type='PipelineSwitchHook', switch_epoch=5)),
    'evaluation': lambda cfg: cfg.test_evaluator.update(proposal_nums=(1, 10, 100)),
    'seed': lambda cfg: cfg.randomness.update(seed=1),
    'pretrained weights': lambda cfg: cfg.model.backbone.pop('init_cfg'),
    'precision': lambda cfg: cfg.optim_wrapper.update(type='mmdet_detr_plugin.BFloat16OptimWrapper'),
    'other preprocessing': lambda cfg: cfg.model.data_preprocessor.update(pad_value=114),
    'other settings': lambda cfg: cfg.update(runner_type='mmdet_detr_plugin.CPURunner'),
}


@pytest.mark.parametrize('item', PLANTED)
def test_planted_difference_is_unfair_under_its_name(pair, item):
    PLANTED[item](pair[1])
    found = {name for name, verdict in differing(pair).items() if verdict == UNFAIR}
    assert item in found
    assert found <= {item, 'test pipeline'}  # a scale is also a part of its pipeline
    assert not is_fair(audit(pair))


@pytest.mark.parametrize(
    'change',
    [
        lambda cfg: cfg.train_dataloader.update(num_workers=0, persistent_workers=False),
        lambda cfg: cfg.optim_wrapper.optimizer.update(lr=1.0),
        lambda cfg: cfg.default_hooks.logger.update(interval=1),
        lambda cfg: cfg.update(work_dir='elsewhere'),
        lambda cfg: cfg.update(scales=[1, 2, 3]),  # a variable of the file that no one reads
        lambda cfg: cfg.train_dataloader.dataset.pipeline[2].update(type='mmdet.RandomFlip'),
    ],
)
def test_what_changes_no_condition_stays_fair(pair, change):
    change(pair[1])
    assert is_fair(audit(pair))


def test_rates_of_a_schedule_are_compared_as_fractions_of_each_models_own(pair):
    for cfg in pair:
        cfg.param_scheduler.append(dict(type='CosineAnnealingLR', eta_min=0.1 * cfg.optim_wrapper.optimizer.lr))
    assert is_fair(audit(pair))
    pair[1].param_scheduler[-1]['eta_min'] *= 2
    assert differing(pair)['schedule shape with warm-up'] == UNFAIR


def test_accumulated_gradients_count_for_the_batch_size(pair):
    pair[0].train_dataloader.batch_size = 1
    pair[0].optim_wrapper.accumulative_counts = 2
    assert differing(pair).get('batch size', EQUAL) == EQUAL


def test_paths_are_compared_however_they_are_written(pair):
    dataset = pair[1].train_dataloader.dataset
    dataset.update(ann_file=dataset.data_root + dataset.ann_file, data_prefix=dict(img=dataset.data_root + 'train2017'), data_root=None)
    assert is_fair(audit(pair))


def test_pretrained_weights_of_other_backbones_are_allowed_with_a_note(pair):
    pair[1].model.backbone.depth = 101
    pair[1].model.backbone.init_cfg.checkpoint = 'resnet101.pth'
    item = next(item for item in audit(pair) if item.item == 'pretrained weights')
    assert item.verdict == ALLOWED and 'same data' in item.note
    pair[1].load_from = 'coco.pth'
    assert differing(pair)['pretrained weights'] == UNFAIR


def test_equal_backbones_start_from_equal_weights(pair):
    pair[0].model.backbone.type, pair[1].model.backbone.type = 'mmdet_detr_plugin.FoldedResNet', 'mmdet.ResNet'
    pair[1].model.backbone.init_cfg.checkpoint = 'other_resnet50.pth'
    assert differing(pair)['pretrained weights'] == UNFAIR
    third = copy.deepcopy(pair[0])
    third.model.backbone.update(depth=101, init_cfg=dict(type='Pretrained', checkpoint='resnet101.pth'))
    assert differing([*pair, third])['pretrained weights'] == UNFAIR


def test_differences_are_shown_with_both_values(pair):
    pair[1].train_dataloader.batch_size = 16
    text = text_table(audit(pair), ['one', 'other'])
    assert 'DIFFERS, AND MUST NOT: batch size' in text and 'batch_size=2' in text and 'batch_size=16' in text
    assert text.endswith('unfair: batch size')
    assert '\033[31m' in text_table(audit(pair), ['one', 'other'], colour=True)


def test_three_configs_are_compared_with_one_another(pair):
    third = copy.deepcopy(pair[0])
    third.randomness.seed = 7
    item = next(item for item in audit([*pair, third]) if item.item == 'seed')
    assert item.verdict == UNFAIR and item.values[2] == 'randomness.seed=7'


def test_one_config_is_no_comparison(pair):
    with pytest.raises(ValueError, match='at least two configs, got 1'):
        audit(pair[:1])


def test_delivered_samples_are_part_of_the_audit(shapes_dir):
    cfgs = []
    for name in ('detr', 'faster-rcnn'):
        file = f'shapes/{name}_r18-half_{"fpn_" * (name != "detr")}1xb4-10e_shapes.py'
        cfg = Config.fromfile(ROOT / 'configs' / file)
        cfg.train_dataloader.dataset.data_root = str(shapes_dir)
        cfgs.append(cfg)
    assert delivered_item(cfgs, batches=2).verdict == EQUAL
    cfgs[1].train_dataloader.dataset.pipeline[2].prob = 0.0
    item = delivered_item(cfgs, batches=4)
    assert item.verdict == UNFAIR and 'delivers other pixels than config 1' in item.values[1]
    cfgs[1].custom_hooks = []
    assert 'EpochSeedHook' in delivered_item(cfgs, batches=1).values[1]
