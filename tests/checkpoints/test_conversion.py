"""Names, class rows and round trips, from generated files in everyone's layout."""

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mmdet_detr_plugin.checkpoints.class_rows import COCO_ROWS, PANOPTIC_ROWS
from mmdet_detr_plugin.checkpoints.convert_file import convert_file
from mmdet_detr_plugin.checkpoints.hf_files import preprocessor_config
from mmdet_detr_plugin.checkpoints.reading import history_statistic
from mmdet_detr_plugin.config_files import config_path

from ..builders import build, detr_config, make_batch, randomize_norm_layers
from ..conftest import ROOT
from ..models.mmdet_names import to_mmdet
from ..models.test_detector import mmdet_config, outputs_of
from . import layouts


def save(weights: dict, path: Path, **beside) -> Path:
    torch.save({'model': weights, **beside}, path)
    return path


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_weights(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        assert torch.equal(got[name], expected[name]), name


def write_config(folder: Path, **changes) -> Path:
    """A config of the plugin for the small models of these tests."""
    model = detr_config(bbox_head=dict(num_classes=80))
    for key, value in changes.items():
        model[key].update(value)
    path = folder / 'config.py'
    path.write_text(f"""default_scope = 'mmdet'
model = {model!r}
train_dataloader = dict(dataset=dict(type='CocoDataset'))
test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')]))
""")
    return path


LAYOUTS = {
    'official': layouts.official(),
    'official, 20 classes': layouts.official(rows=21),
    'official, learned positions': layouts.official(learned=True),
    'official, pre-norm': layouts.official(pre_norm=True),
    'official, R50': layouts.official(bottleneck=True, blocks=(3, 4, 6, 3)),
    'official, R101': layouts.official(bottleneck=True, blocks=(3, 4, 23, 3)),
    'official, panoptic': layouts.panoptic(),
    'official, demo': layouts.demo(),
    'detrex': layouts.detrex(),
    'detrex, DC5': layouts.detrex(torchvision_resnet=True),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_round_trip_is_bit_equal(name, tmp_path):
    weights = layouts.filled(LAYOUTS[name])
    source = save(weights, tmp_path / 'source.pth')
    convert_file(source, tmp_path / 'plugin.pth')
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.pth', to=name.split(',')[0])
    assert_same_weights(load(tmp_path / 'back.pth')['model'], weights)


def test_official_coco_rows_become_the_configs_classes_by_category_id(tmp_path):
    weights = layouts.filled(layouts.official())
    weights['class_embed.bias'] = torch.arange(92.0)
    source = save(weights, tmp_path / 'source.pth')
    lines = convert_file(source, tmp_path / 'plugin.pth', config=write_config(tmp_path))
    checkpoint = load(tmp_path / 'plugin.pth')
    bias = checkpoint['state_dict']['bbox_head.fc_cls.bias'].tolist()
    # person 1, bicycle 2, ..., stop sign 13 (12 is no category), ..., toothbrush 90, no-object 91
    assert len(bias) == 81 and bias[:2] == [1, 2] and bias[10:13] == [11, 13, 14] and bias[-2:] == [90, 91]
    assert bias[:-1] == [COCO_ROWS[name] for name in checkpoint['meta']['dataset_meta']['classes']]
    assert (
        '80 of 91 rows taken (COCO category ids, 91 rows and no-object), 0 new, no-object taken\n11 class rows are kept aside'
        in '\n'.join(lines)
    )


def test_other_class_counts_map_one_to_one_or_are_refused(tmp_path):
    source = save(layouts.filled(layouts.official(rows=6)), tmp_path / 'source.pth')
    lines = convert_file(source, tmp_path / 'plugin.pth', config=write_config(tmp_path, bbox_head=dict(num_classes=5)))
    assert '5 of 5 rows taken (one to one)' in '\n'.join(lines)
    with pytest.raises(
        ValueError, match=r'6 class rows \(5 classes and no-object\), the config has 7 classes.*set num_classes=5 .*--classes FILE'
    ):
        convert_file(source, tmp_path / 'no.pth', config=write_config(tmp_path, bbox_head=dict(num_classes=7)))
    assert not (tmp_path / 'no.pth').exists()


def test_as_many_classes_of_other_names_are_not_taken_in_order(tmp_path):
    """A class went and another came: sorted names move by a row."""
    ours = build(detr_config(bbox_head=dict(num_classes=3)))
    wanted = write_config(tmp_path, bbox_head=dict(num_classes=3))
    wanted.write_text(wanted.read_text() + "\ntrain_dataloader = dict(dataset=dict(metainfo=dict(classes=('ant', 'bee', 'cat'))))\n")
    meta = dict(dataset_meta=dict(classes=('bee', 'cat', 'dog')))
    torch.save(dict(state_dict=ours.state_dict(), meta=meta), tmp_path / 'trained.pth')
    with pytest.raises(ValueError, match=r"3 classes each.* not the same: 'dog' in the file, 'ant' in the config.*--classes FILE"):
        convert_file(tmp_path / 'trained.pth', tmp_path / 'no.pth', config=wanted)
    assert not (tmp_path / 'no.pth').exists()
    torch.save(dict(state_dict=ours.state_dict(), meta={}), tmp_path / 'unnamed.pth')
    assert '3 of 3 rows taken (one to one)' in '\n'.join(convert_file(tmp_path / 'unnamed.pth', tmp_path / 'yes.pth', config=wanted))


def test_classes_that_the_file_lacks_need_fine_tuning(tmp_path):
    source = save(layouts.filled(layouts.official()), tmp_path / 'source.pth')
    config = write_config(tmp_path, bbox_head=dict(num_classes=2))
    config.write_text(config.read_text() + "train_dataloader['dataset']['metainfo'] = dict(classes=('dog', 'raccoon'))\n")
    with pytest.raises(ValueError, match=r"none of them for 'raccoon' of the config; prepare fine-tuning with --classes FILE"):
        convert_file(source, tmp_path / 'no.pth', config=config)


def test_named_rows_are_brought_into_the_configs_order(tmp_path):
    ours = build(detr_config(bbox_head=dict(num_classes=3)))
    torch.save(dict(state_dict=ours.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b', 'c')))), tmp_path / 'trained.pth')
    config = write_config(tmp_path, bbox_head=dict(num_classes=2))
    config.write_text(config.read_text() + "train_dataloader['dataset']['metainfo'] = dict(classes=('c', 'a'))\n")
    convert_file(tmp_path / 'trained.pth', tmp_path / 'plugin.pth', config=config)
    rows = ours.bbox_head.fc_cls.weight
    assert torch.equal(load(tmp_path / 'plugin.pth')['state_dict']['bbox_head.fc_cls.weight'], rows[[2, 0, 3]])


def test_fine_tuning_keeps_rows_of_the_same_class_and_no_object(tmp_path):
    weights = layouts.filled(layouts.official())
    source = save(weights, tmp_path / 'source.pth')
    annotations = tmp_path / 'train.json'
    annotations.write_text(json.dumps(dict(categories=[dict(id=7, name=name) for name in ('raccoon', 'dog', 'cat')])))
    lines = convert_file(source, tmp_path / 'plugin.pth', classes_file=annotations, num_queries=7)
    state = load(tmp_path / 'plugin.pth')['state_dict']
    rows = weights['class_embed.weight']
    assert state['bbox_head.fc_cls.weight'].shape == (4, 32)
    assert torch.equal(state['bbox_head.fc_cls.weight'][1:], rows[[18, 17, 91]])  # dog 18, cat 17, no-object
    assert not any(torch.equal(state['bbox_head.fc_cls.weight'][0], row) for row in rows)
    assert torch.equal(state['neck.query_embed.weight'], weights['query_embed.weight'][:7])
    text = '\n'.join(lines)
    assert (
        "2 of 3 classes keep their row: 'dog', 'cat'" in text
        and "1 of 3 classes start anew: 'raccoon'" in text
        and 'queries: 10 -> 7; 3 were cut off' in text
    )
    convert_file(source, tmp_path / 'again.pth', classes_file=annotations, num_queries=12)
    longer = load(tmp_path / 'again.pth')['state_dict']
    assert (
        torch.equal(longer['neck.query_embed.weight'][:10], weights['query_embed.weight']) and len(longer['neck.query_embed.weight']) == 12
    )
    assert torch.equal(longer['bbox_head.fc_cls.weight'], state['bbox_head.fc_cls.weight'])  # new rows are repeatable


def test_fine_tuning_points_at_classes_of_nearly_the_same_name(tmp_path):
    source = save(layouts.filled(layouts.official()), tmp_path / 'source.pth')
    (tmp_path / 'classes.txt').write_text('Person\ndiningtable\nzeppelin\n')
    text = '\n'.join(convert_file(source, tmp_path / 'plugin.pth', classes_file=tmp_path / 'classes.txt'))
    assert "3 of 3 classes start anew: 'Person' (the file has 'person', near it; rename the class to keep that row)" in text
    assert "'diningtable' (the file has 'dining table'" in text and text.index("'zeppelin'\n")


def test_averaged_weights_beside_the_taken_ones_are_named(tmp_path):
    weights = layouts.filled(layouts.detrex())
    torch.save(dict(model=weights, ema_state=weights), tmp_path / 'source.pth')
    assert 'note: the file also holds ema_state, which was not taken' in convert_file(tmp_path / 'source.pth', tmp_path / 'plugin.pth')


def test_hf_folder_resizes_and_normalises_as_the_config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f"""_base_ = {config_path('detr_r18-half_1xb2-12e_coco320')!r}
model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(3,)))
model['data_preprocessor'] = dict(mean=[127.5] * 3, std=[51.0] * 3)
""")
    torch.save(dict(state_dict=build(Config.fromfile(path).model).state_dict(), meta={}), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'hf', to='hf', config=path)
    processor = json.loads((tmp_path / 'hf' / 'preprocessor_config.json').read_text())
    assert processor['size'] == dict(shortest_edge=240, longest_edge=320)
    assert processor['image_mean'] == [0.5] * 3 and processor['image_std'] == [0.2] * 3
    path.write_text(path.read_text() + "model['data_preprocessor']['bgr_to_rgb'] = False\n")
    with pytest.raises(ValueError, match='feeds images as BGR'):
        convert_file(tmp_path / 'trained.pth', tmp_path / 'no', to='hf', config=path)
    assert not (tmp_path / 'no').exists()


def test_hf_folder_has_the_size_of_any_test_pipeline():
    cfg = Config.fromfile(config_path('detr_r18-half_1xb2-12e_coco320'))
    steps = cfg.test_dataloader.dataset.pipeline
    number = next(number for number, step in enumerate(steps) if step.type == 'Resize')

    def sized(**step) -> tuple:
        steps[number] = step
        found = preprocessor_config(cfg)
        return found['do_resize'], found['size']

    assert sized(type='mmdet.Resize', scale=(512, 384)) == (True, dict(height=384, width=512))
    assert sized(type='mmcv.Resize', scale=300, keep_ratio=True) == (True, dict(shortest_edge=300, longest_edge=300))
    assert sized(type='FixScaleResize', scale=(512, 384)) == (True, dict(height=384, width=512))  # keeps no ratio unless told to
    assert not sized(type='Resize', scale_factor=1.0)[0] and not sized(type='PackDetInputs')[0]
    for step in (dict(type='Resize', scale_factor=0.5), dict(type='RandomChoiceResize', scales=[(300, 300)])):
        with pytest.raises(ValueError, match=f'{step["type"]}.*only resizes once, to one scale. Evaluate with'):
            sized(**step)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.test_dataloader.dataset])
    assert sized(type='Resize', scale=(320, 240), keep_ratio=True) == (True, dict(shortest_edge=240, longest_edge=320))


def test_converted_weights_fill_the_model_and_load_everywhere(tmp_path):
    source = save(layouts.filled(layouts.official()), tmp_path / 'source.pth')
    config = write_config(tmp_path)
    convert_file(source, tmp_path / 'plugin.pth', config=config)
    checkpoint = load(tmp_path / 'plugin.pth')
    MODELS.build(detr_config(bbox_head=dict(num_classes=80))).load_state_dict(checkpoint['state_dict'], strict=True)
    model = init_detector(str(config), str(tmp_path / 'plugin.pth'), device='cpu', palette='coco')
    assert model.dataset_meta['classes'][:2] == ('person', 'bicycle')


def test_mmdet_weights_compute_the_same_and_go_back(tmp_path):
    theirs = MODELS.build(mmdet_config())
    randomize_norm_layers(theirs)
    torch.save(dict(state_dict=theirs.state_dict(), meta=dict(dataset_meta=dict(classes=tuple('abcde')))), tmp_path / 'mmdet.pth')
    convert_file(tmp_path / 'mmdet.pth', tmp_path / 'plugin.pth')
    checkpoint = load(tmp_path / 'plugin.pth')
    assert checkpoint['meta']['dataset_meta']['classes'] == tuple('abcde')
    ours = build(detr_config())
    ours.load_state_dict(checkpoint['state_dict'], strict=True)
    assert_same_weights(to_mmdet(checkpoint['state_dict']), theirs.state_dict())  # by a table of its own
    batch = make_batch([(96, 160), (128, 90)], [3, 2])
    with torch.no_grad():
        got, expected = (outputs_of(model.eval(), batch) for model in (ours, theirs))
    for ours_layer, theirs_layer in zip(got, expected, strict=True):
        torch.testing.assert_close(ours_layer, theirs_layer, atol=1e-4, rtol=0)
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.pth', to='mmdet')
    assert_same_weights(load(tmp_path / 'back.pth')['state_dict'], theirs.state_dict())


@pytest.mark.parametrize('torchvision_resnet', [False, True])
def test_detrex_and_official_files_of_one_model_become_the_same(torchvision_resnet, tmp_path):
    official = layouts.filled(layouts.official(rows=81, bottleneck=True, blocks=(3, 4, 6, 3)))
    detrex = dict(zip(layouts.detrex(torchvision_resnet=torchvision_resnet), official.values(), strict=True))  # generated in the same order
    detrex['criterion.empty_weight'] = torch.ones(81)  # detrex stores its loss's buffer
    convert_file(save(official, tmp_path / 'official.pth'), tmp_path / 'a.pth')
    convert_file(save(detrex, tmp_path / 'detrex.pth'), tmp_path / 'b.pth')
    assert_same_weights(load(tmp_path / 'b.pth')['state_dict'], load(tmp_path / 'a.pth')['state_dict'])
    convert_file(tmp_path / 'b.pth', tmp_path / 'back.pth', to='detrex')
    assert_same_weights(load(tmp_path / 'back.pth')['model'], detrex)


def test_weights_trained_here_go_to_every_layout_and_back(tmp_path):
    ours = build(detr_config(), randomize_norms=True)
    torch.save(dict(state_dict=ours.state_dict(), meta={}), tmp_path / 'trained.pth')
    for to in ('official', 'mmdet', 'detrex'):
        convert_file(tmp_path / 'trained.pth', tmp_path / f'{to}.pth', to=to)
        convert_file(tmp_path / f'{to}.pth', tmp_path / 'back.pth')
        assert_same_weights(load(tmp_path / 'back.pth')['state_dict'], ours.state_dict())


def test_training_aids_are_stripped(tmp_path):
    """What trained with aids becomes the checkpoint of plain DETR."""
    config = write_config(tmp_path)
    aids = dict(groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2))
    config.write_text(config.read_text() + f"model['training_aids'] = {aids!r}\n")
    aided = build(Config.fromfile(config).model)
    torch.save(dict(state_dict=aided.state_dict()), tmp_path / 'epoch_12.pth')
    summary = ' '.join(convert_file(tmp_path / 'epoch_12.pth', tmp_path / 'plain.pth', config=config))
    assert '1 weights of training aids were left out' in summary
    plain = build(detr_config(bbox_head=dict(num_classes=80)))
    plain.load_state_dict(load(tmp_path / 'plain.pth')['state_dict'], strict=True)
    assert_same_weights(plain.state_dict(), {name: value for name, value in aided.state_dict().items() if 'training_aids' not in name})


def test_selecting_again_starts_from_all_rows(tmp_path):
    """official -> 80 classes -> other order -> official is still exact; after fine-tuning's selection nothing is put back."""
    weights = layouts.filled(layouts.official())
    source = save(weights, tmp_path / 'source.pth')
    config = write_config(tmp_path)
    convert_file(source, tmp_path / 'plugin.pth', config=config)
    config.write_text(config.read_text() + f"train_dataloader['dataset']['metainfo'] = dict(classes={tuple(reversed(COCO_ROWS))!r})\n")
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'reversed.pth', config=config)
    bias = load(tmp_path / 'reversed.pth')['state_dict']['bbox_head.fc_cls.bias']
    assert torch.equal(bias[:-1], weights['class_embed.bias'][list(COCO_ROWS.values())[::-1]])
    convert_file(tmp_path / 'reversed.pth', tmp_path / 'back.pth', to='official')
    assert_same_weights(load(tmp_path / 'back.pth')['model'], weights)

    names = tmp_path / 'classes.txt'
    names.write_text('raccoon\ndog\n')
    for start in (source, tmp_path / 'plugin.pth'):
        convert_file(start, tmp_path / 'few.pth', classes_file=names)
        convert_file(tmp_path / 'few.pth', tmp_path / 'few_back.pth', to='official')
        assert torch.equal(load(tmp_path / 'few_back.pth')['model']['class_embed.bias'][1:], weights['class_embed.bias'][[18, 91]])
        convert_file(start, tmp_path / 'direct.pth', to='official', classes_file=names)
        assert len(load(tmp_path / 'direct.pth')['model']['class_embed.bias']) == 3


def test_92_rows_of_another_origin_are_no_coco_ids(tmp_path):
    ours = build(detr_config(bbox_head=dict(num_classes=91)))
    torch.save(dict(state_dict=ours.state_dict(), meta={}), tmp_path / 'trained.pth')
    lines = convert_file(tmp_path / 'trained.pth', tmp_path / 'plugin.pth')
    assert '91 of 91 rows taken (one to one)' in '\n'.join(lines)


def test_foreign_side_entry_is_named(tmp_path):
    torch.save(dict(state_dict=build(detr_config()).state_dict(), detr_source=dict(format='x')), tmp_path / 'trained.pth')
    with pytest.raises(ValueError, match=r"entry detr_source of the file is not one that .* wrote \(KeyError: 'variant'\)"):
        convert_file(tmp_path / 'trained.pth', tmp_path / 'no.pth')


def test_config_and_options_must_agree(tmp_path):
    source = save(layouts.filled(layouts.official()), tmp_path / 'source.pth')
    names = tmp_path / 'classes.txt'
    names.write_text('raccoon\ndog\n')
    config = write_config(tmp_path)
    with pytest.raises(
        ValueError, match=r'classes.txt has 2 classes \(raccoon, dog ...\), .*config.py has 80 \(person, .*must be the same'
    ):
        convert_file(source, tmp_path / 'no.pth', config=config, classes_file=names)
    with pytest.raises(
        ValueError, match=r'(?s)--num-queries changes the queries.*query_embed.weight has shape \(7, 32\), expected \(10, 32\)'
    ):
        convert_file(source, tmp_path / 'no.pth', config=config, num_queries=7)
    with pytest.raises(ValueError, match='number of queries must be at least 1, got 0'):
        convert_file(source, tmp_path / 'no.pth', num_queries=0)
    with pytest.raises(ValueError, match='is a config of FasterRCNN; --config must be one of mmdet_detr_plugin.DETR'):
        convert_file(source, tmp_path / 'no.pth', config=ROOT / 'configs/faster_rcnn/faster-rcnn_r50_fpn_8xb2-1x_coco.py')
    with pytest.raises(ValueError, match=r'.safetensors holds tensors only, which is HF.s layout'):
        convert_file(source, tmp_path / 'no.safetensors', to='mmdet')
    assert not list(tmp_path.glob('no*'))


def test_coco_model_trained_here_gets_the_official_rows(tmp_path):
    ours = build(detr_config(bbox_head=dict(num_classes=80)))
    torch.save(dict(state_dict=ours.state_dict(), meta=dict(dataset_meta=dict(classes=tuple(COCO_ROWS)))), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'official.pth', to='official')
    official = load(tmp_path / 'official.pth')['model']
    rows = [*COCO_ROWS.values(), 91]
    assert torch.equal(official['class_embed.weight'][rows], ours.bbox_head.fc_cls.weight)
    states = torch.randn(7, 32)
    scores = (states @ official['class_embed.weight'].T + official['class_embed.bias']).softmax(-1)
    torch.testing.assert_close(scores[:, rows], ours.bbox_head.fc_cls(states).softmax(-1).detach())
    convert_file(tmp_path / 'official.pth', tmp_path / 'back.pth')
    assert_same_weights(load(tmp_path / 'back.pth')['state_dict'], ours.state_dict())


def test_what_leaves_no_trace_in_weights_is_refused_where_it_does_not_exist(tmp_path):
    sine = dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=16, temperature=20)
    short_waves = dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=16, scale=50.265482)
    usual = dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=16, temperature=1e4, normalize=True, scale=6.283185307)
    learned = dict(type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=16)
    for changes, to, message in (
        (dict(backbone=dict(type='mmdet_detr_plugin.ResNetDC5')), 'mmdet', 'mmdet, which dilates other blocks'),
        (dict(neck=dict(position_encoding=sine)), 'hf', r"no position encoding with {'temperature': 20}"),
        (dict(neck=dict(position_encoding=short_waves)), 'mmdet', r"no position encoding with {'scale': 50.265482}; .* 'scale': 6.28"),
        (dict(neck=dict(position_encoding=learned)), 'mmdet', '2 parameters of the plugin have no name in mmdet: neck.position_encoding'),
        (dict(neck=dict(pre_norm=True)), 'detrex', '2 parameters of the plugin have no name in detrex: neck.encoder.norm'),
    ):
        changes = {**changes, 'bbox_head': dict(num_classes=5)}
        torch.save(dict(state_dict=build(detr_config(**changes)).state_dict(), meta={}), tmp_path / 'trained.pth')
        with pytest.raises(ValueError, match=message):
            convert_file(tmp_path / 'trained.pth', tmp_path / 'no', to=to, config=write_config(tmp_path, **changes))
        assert not (tmp_path / 'no').exists()
    changes = dict(neck=dict(position_encoding=usual), bbox_head=dict(num_classes=5))
    torch.save(dict(state_dict=build(detr_config(**changes)).state_dict(), meta={}), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'yes.pth', to='mmdet', config=write_config(tmp_path, **changes))


def test_unknown_missing_and_misshapen_tensors_are_all_listed(tmp_path):
    weights = layouts.filled(layouts.official())
    for change, messages in (
        (dict(add='transformer.level.weight'), ['1 tensors of the official file have no place in the plugin: transformer.level.weight']),
        (
            dict(remove='transformer.decoder.layers.1.norm2.bias'),
            ['1 differences', 'missing in the file: neck.decoder.layers.1.norm2.bias (32,)'],
        ),
        (
            dict(remove='transformer.decoder.layers.1.norm2.bias', to='official'),
            ['missing in the file: neck.decoder.layers.1.norm2.bias (32,)'],
        ),
        (dict(remove='class_embed.bias'), ['lacks what becomes bbox_head.fc_cls.bias']),
    ):
        changed = {name: value for name, value in weights.items() if name != change.get('remove')}
        if 'add' in change:
            changed[change['add']] = torch.ones(2)
        with pytest.raises(ValueError) as error:
            convert_file(save(changed, tmp_path / 'source.pth'), tmp_path / 'no.pth', to=change.get('to', 'plugin'))
        assert all(message in str(error.value) for message in messages), error.value
    source = save(weights, tmp_path / 'source.pth')
    with pytest.raises(
        ValueError, match=r'(?s)do not fit .*config.py: ResNet-18, 2 \+ 4 layers.*missing in the file: neck.decoder.layers.3'
    ) as error:
        convert_file(source, tmp_path / 'no.pth', config=write_config(tmp_path, neck=dict(num_decoder_layers=4)))
    assert str(error.value).count('missing in the file') == 18
    assert not (tmp_path / 'no.pth').exists()


def test_files_that_carry_code_run_nothing(tmp_path):
    mark = tmp_path / 'ran'

    class Code:
        def __reduce__(self):
            return (exec, (f'open({str(mark)!r}, "w").close()',))

    weights = layouts.filled(layouts.official(rows=6))
    save(weights, tmp_path / 'code.pth', extra=Code())
    with pytest.raises(
        ValueError, match=r'holds more than tensors and plain values \(\S*exec\), and was not opened, because such objects can run code'
    ):
        convert_file(tmp_path / 'code.pth', tmp_path / 'no.pth')
    (tmp_path / 'plain.bin').write_bytes(pickle.dumps(Code()))
    with pytest.raises(ValueError, match='plain.bin'):
        convert_file(tmp_path / 'plain.bin', tmp_path / 'no.pth')
    assert not mark.exists() and not (tmp_path / 'no.pth').exists()
    # what facebookresearch/detr stores beside its weights is let through
    save(weights, tmp_path / 'args.pth', args=argparse.Namespace(lr=1e-4), epoch=3)
    convert_file(tmp_path / 'args.pth', tmp_path / 'yes.pth')


def test_mmengines_own_checkpoints_are_read(tmp_path):
    """They hold log values as objects, which torch refuses since 2.6."""
    ours = build(detr_config())
    hub = dict(log_scalars=dict(loss=HistoryBuffer([3.0, 2.0], [1, 1])), runtime_info=dict(best=np.float64(0.3)))
    torch.save(dict(state_dict=ours.state_dict(), meta={}, message_hub=hub), tmp_path / 'mmengine.pth')
    with pytest.raises(pickle.UnpicklingError):
        load(tmp_path / 'mmengine.pth')
    convert_file(tmp_path / 'mmengine.pth', tmp_path / 'plain.pth')
    assert_same_weights(load(tmp_path / 'plain.pth')['state_dict'], ours.state_dict())
    for owner, name in ((HistoryBuffer, '__init__'), (HistoryBuffer, '__class__'), (str, 'mean'), (Path, 'unlink')):
        with pytest.raises(pickle.UnpicklingError, match='may not be read'):
            history_statistic(owner, name)


def test_truncated_and_foreign_files_are_named(tmp_path):
    source = save(layouts.filled(layouts.official(rows=6)), tmp_path / 'source.pth')
    (tmp_path / 'half.pth').write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    cases = {
        'half.pth': 'half.pth is truncated or no checkpoint',
        'nowhere.pth': 'nowhere.pth does not exist; expected a .pth, .bin or .safetensors file',
    }
    for content, name, message in (
        (
            resnet := layouts.filled(layouts.resnet()) | {'fc.weight': torch.ones(2, 2)},
            'resnet.pth',
            'weights of an image classifier; found bn1',
        ),
        ({'rpn_head.conv.weight': torch.ones(2)}, 'faster.pth', 'weights of a two-stage detector such as Faster R-CNN'),
        ({'transformer.level_embed': torch.ones(2)}, 'deformable.pth', 'weights of Deformable DETR or a descendant'),
        ({'a': torch.ones(2)}, 'other.pth', 'belong to no DETR that is known here; found a ...'),
        ({'epoch': 3}, 'empty.pth', 'holds no weights: its entries are epoch'),
        ([torch.ones(2)], 'list.pth', 'holds a list; expected a dict of weights'),
    ):
        torch.save(content, tmp_path / name)
        cases[name] = message
    assert len(resnet) > 60
    for name, message in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            convert_file(tmp_path / name, tmp_path / 'no.pth')


def test_command_line_prints_a_summary_and_one_line_errors(tmp_path):
    source = save(layouts.filled(layouts.official()), tmp_path / 'source.pth')
    command = [sys.executable, ROOT / 'tools' / 'convert_checkpoint.py', source, tmp_path / 'plugin.pth']
    done = subprocess.run([*command, '--config', write_config(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'official, ResNet-18, 2 + 3 layers of 32 channels, post-norm, 10 queries, 91 classes' in done.stdout
    assert f'wrote {tmp_path / "plugin.pth"} (plugin)' in done.stdout
    done = subprocess.run([*command, '--config', 'detr_r50_8xb2-150e_coco'], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('error: the official weights do not fit') and 'Traceback' not in done.stderr


def test_rows_are_the_category_ids_of_coco(shared_data):
    categories = json.loads(next((shared_data / 'coco128' / 'annotations').glob('panoptic_*.json')).read_text())['categories']
    assert {category['name']: category['id'] for category in categories} == PANOPTIC_ROWS
    assert {category['name']: category['id'] for category in categories if category['isthing']} == COCO_ROWS
