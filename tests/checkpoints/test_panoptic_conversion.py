"""Panoptic models in everyone's layout: the mask head's place, COCO's things and stuff, and what is refused."""

from pathlib import Path

import pytest
import torch

from mmdet_detr_plugin.checkpoints.class_rows import COCO_ROWS, PANOPTIC_ROWS
from mmdet_detr_plugin.checkpoints.convert_file import convert_file
from mmdet_detr_plugin.checkpoints.formats import FORMATS, recognise

from ..builders import build, detr_config, randomize_norm_layers
from ..models.panoptic.builders import panoptic_config
from . import layouts
from .test_conversion import assert_same_weights, load, save, write_config

MASK_NAMES = set(layouts.mask_head())
MASK_HEAD = f'{len(MASK_NAMES)} tensors of the mask head are'


def coco_config(**changes) -> dict:
    """A small model of COCO's things and stuff with as many heads as the official layout's mask head shows."""
    changes = {'neck': dict(num_heads=8), 'bbox_head': dict(num_classes=133), 'num_things_classes': 80, 'num_stuff_classes': 53} | changes
    return panoptic_config(**changes)


def write_panoptic_config(folder: Path, model: dict, dataset: str = 'CocoPanopticDataset') -> Path:
    path = folder / 'panoptic.py'
    path.write_text(f"""default_scope = 'mmdet'
model = {model!r}
train_dataloader = dict(dataset=dict(type={dataset!r}))
test_dataloader = dict(dataset=dict(type={dataset!r}, pipeline=[dict(type='LoadImageFromFile')]))
""")
    return path


@pytest.fixture(scope='module')
def official():
    weights = layouts.filled(layouts.panoptic())
    weights['detr.class_embed.bias'] = torch.arange(251.0)
    return weights


@pytest.mark.parametrize('with_config', [False, True])
def test_official_file_fills_the_panoptic_model(official, with_config, tmp_path):
    model = coco_config()
    config = write_panoptic_config(tmp_path, model) if with_config else None
    lines = convert_file(save(official, tmp_path / 'source.pth'), tmp_path / 'plugin.pth', config=config)
    text = '\n'.join(lines)
    assert 'official, ResNet-18' in text and '250 classes, mask head of 8 attention heads' in text
    assert '133 of 250 rows taken (COCO category ids, 250 rows and no-object)' in text and 'mask head are' not in text
    checkpoint = load(tmp_path / 'plugin.pth')
    build(model).load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint['meta']['dataset_meta']['classes'] == tuple(PANOPTIC_ROWS)
    bias = checkpoint['state_dict']['bbox_head.fc_cls.bias'].tolist()
    assert bias == [*PANOPTIC_ROWS.values(), 250]
    assert bias[:2] == [1, 2] and bias[79:82] == [90, 92, 93] and bias[-2:] == [200, 250]  # toothbrush, banner, blanket; rug, no-object
    for theirs, ours in (
        ('bbox_attention.q_linear.weight', 'mask_head.attention.q_linear.weight'),
        ('bbox_attention.k_linear.bias', 'mask_head.attention.k_linear.bias'),
        ('mask_head.lay1.weight', 'mask_head.mask_convs.convs.0.weight'),
        ('mask_head.gn5.bias', 'mask_head.mask_convs.norms.4.bias'),
        ('mask_head.adapter1.weight', 'mask_head.mask_convs.adapters.0.weight'),
        ('mask_head.out_lay.weight', 'mask_head.mask_convs.conv_out.weight'),
    ):
        assert torch.equal(checkpoint['state_dict'][ours], official[theirs]), ours


def test_all_formats_are_recognised(official):
    assert recognise(official) is FORMATS['official', '']
    assert recognise(build(panoptic_config()).state_dict()) is FORMATS['plugin', '']


@pytest.mark.parametrize('bottleneck', [False, True])
def test_every_way_back_is_bit_equal(bottleneck, tmp_path):
    """With the mask head in its place, and with it kept aside for a detector of the things, whose boxes alone are wanted."""
    shapes = layouts.panoptic(bottleneck=True, blocks=(3, 4, 6, 3)) if bottleneck else layouts.panoptic(learned=True)
    weights = layouts.filled(shapes)
    source = save(weights, tmp_path / 'source.pth')
    backbone = dict(depth=50) if bottleneck else {}
    neck = dict(num_heads=8) | (dict(in_channels=2048) if bottleneck else {})
    if not bottleneck:
        neck['position_encoding'] = dict(type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=16)
    config = write_config(tmp_path, neck=neck, backbone=backbone)
    lines = convert_file(source, tmp_path / 'detector.pth', config=config)
    assert f'{MASK_HEAD} kept aside: {config} has none' in lines
    assert '170 class rows are kept aside' in '\n'.join(lines)
    detector = load(tmp_path / 'detector.pth')
    assert detector['state_dict']['bbox_head.fc_cls.bias'].tolist() == weights['detr.class_embed.bias'][[*COCO_ROWS.values(), 250]].tolist()
    assert detector['detr_source']['aside'].keys() == MASK_NAMES  # as files had it before the plugin had a mask head
    convert_file(source, tmp_path / 'whole.pth')
    convert_file(tmp_path / 'detector.pth', tmp_path / 'again.pth')
    assert_same_weights(load(tmp_path / 'again.pth')['state_dict'], load(tmp_path / 'whole.pth')['state_dict'])
    for start in ('whole', 'detector', 'again'):
        convert_file(tmp_path / f'{start}.pth', tmp_path / 'back.pth', to='official')
        assert_same_weights(load(tmp_path / 'back.pth')['model'], weights)


def trained(**changes) -> torch.nn.Module:
    torch.manual_seed(3)
    model = build(coco_config(**changes))
    randomize_norm_layers(model)
    return model


@pytest.mark.parametrize('to, suffix', [('official', '.pth'), ('hf', '.safetensors')])
def test_model_trained_here_goes_to_others_and_back(to, suffix, tmp_path):
    pytest.importorskip('safetensors')
    model = trained()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=tuple(PANOPTIC_ROWS)))), tmp_path / 'trained.pth')
    lines = convert_file(tmp_path / 'trained.pth', tmp_path / f'other{suffix}', to=to)
    if to == 'official':
        assert 'note: the 133 classes stand in the 250 rows of COCO category ids' in lines
        other = load(tmp_path / 'other.pth')['model']
        assert other.keys() >= MASK_NAMES and all(name.startswith('detr.') for name in other.keys() - MASK_NAMES)
        assert torch.equal(other['detr.class_embed.bias'][[*PANOPTIC_ROWS.values(), 250]], model.bbox_head.fc_cls.bias)
        assert (other['detr.class_embed.bias'] == -100).sum() == 251 - 134
    convert_file(tmp_path / f'other{suffix}', tmp_path / 'back.pth')
    assert_same_weights(load(tmp_path / 'back.pth')['state_dict'], model.state_dict())


def test_mask_head_is_left_out_where_there_is_none(official, tmp_path):
    source = save(official, tmp_path / 'source.pth')
    assert f'{MASK_HEAD} left out: mmdet has none' in convert_file(source, tmp_path / 'm.pth', to='mmdet')
    assert not any('mask' in name or name.startswith('detr.') for name in load(tmp_path / 'm.pth')['state_dict'])
    boxes = coco_config() | dict(mask_head=None)  # the first stage of training
    config = write_panoptic_config(tmp_path, boxes)
    lines = convert_file(source, tmp_path / 'boxes.pth', config=config)
    assert f'{MASK_HEAD} kept aside: {config} has none' in lines
    build(boxes).load_state_dict(load(tmp_path / 'boxes.pth')['state_dict'], strict=True)
    assert 'left out' in '\n'.join(convert_file(source, tmp_path / 'detector.pth', to='official', config=config))
    assert not any(name.startswith('detr.') for name in load(tmp_path / 'detector.pth')['model'])


def test_things_alone_take_their_rows_and_the_mask_head(official, tmp_path):
    """Instance segmentation on COCO."""
    model = coco_config(bbox_head=dict(num_classes=80), num_stuff_classes=0)
    config = write_panoptic_config(tmp_path, model, 'CocoDataset')
    convert_file(save(official, tmp_path / 'source.pth'), tmp_path / 'plugin.pth', config=config)
    state = load(tmp_path / 'plugin.pth')['state_dict']
    build(model).load_state_dict(state, strict=True)
    assert state['bbox_head.fc_cls.bias'].tolist() == [*COCO_ROWS.values(), 250]


def test_fine_tuning_keeps_rows_of_things_and_stuff(official, tmp_path):
    names = tmp_path / 'classes.txt'
    names.write_text('dog\nraccoon\ngrass-merged\n')
    convert_file(save(official, tmp_path / 'source.pth'), tmp_path / 'plugin.pth', classes_file=names)
    state = load(tmp_path / 'plugin.pth')['state_dict']
    assert state['bbox_head.fc_cls.bias'][[0, 2, 3]].tolist() == [18, 193, 250]
    assert torch.equal(state['mask_head.mask_convs.convs.0.bias'], official['mask_head.lay1.bias'])


def test_attention_heads_must_be_those_of_the_mask_head(official, tmp_path):
    source = save(official, tmp_path / 'source.pth')
    for model, message in (
        (coco_config(mask_head=dict(num_heads=16)), r'has 8 attention heads; .*panoptic.py has mask_head.num_heads=16, set 8'),
        (coco_config(neck=dict(num_heads=4)), r'has 8 attention heads, and with it the transformer; .* has neck.num_heads=4, set 8'),
        (detr_config(bbox_head=dict(num_classes=80)), r'and with it the transformer; .* has neck.num_heads=4, set 8'),
    ):
        with pytest.raises(ValueError, match=message):
            convert_file(source, tmp_path / 'no.pth', config=write_panoptic_config(tmp_path, model))
    # which a model trained here may have, but not the official code
    config = write_panoptic_config(tmp_path, coco_config(neck=dict(num_heads=4)))
    torch.save(dict(state_dict=trained(neck=dict(num_heads=4)).state_dict()), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'yes.pth', config=config)
    with pytest.raises(ValueError, match='official has as many attention heads in the mask head as in the transformer; .* has 8 and 4'):
        convert_file(tmp_path / 'trained.pth', tmp_path / 'no.pth', to='official', config=config)
    assert not (tmp_path / 'no.pth').exists()


def test_mask_head_that_is_missing_or_not_whole_is_named(official, tmp_path):
    config = write_panoptic_config(tmp_path, coco_config())
    plain = {name.removeprefix('detr.'): value for name, value in official.items() if name not in MASK_NAMES}
    with pytest.raises(ValueError, match=r'the official file has no mask head, and .*panoptic.py has one; convert with .*mask_head=None'):
        convert_file(save(plain, tmp_path / 'source.pth'), tmp_path / 'no.pth', config=config)
    broken = official | {'mask_head.lay1.weight': torch.zeros(30, 40, 3, 3)}
    headless = {name: value for name, value in official.items() if name != 'mask_head.lay1.weight'}
    unshifted = {name: value for name, value in official.items() if name != 'mask_head.gn3.bias'}
    extra = official | {'mask_head.lay6.weight': torch.zeros(1)}
    cases = (
        (headless, 'nothing that becomes mask_head.mask_convs.convs.0.weight'),
        (unshifted, r'missing in the file: mask_head.mask_convs.norms.2.bias \(8,\)'),
        (broken, "mask head's first convolution has 30 channels; expected the transformer's 32 and one for each attention head"),
        (extra, '1 tensors of the official file have no place in the plugin: mask_head.lay6'),
        (official | {'class_embed.bias': torch.zeros(251)}, '1 tensors twice, with detr. and without: class_embed.bias'),
        ({k: v for k, v in official.items() if k in MASK_NAMES}, 'these are weights of a mask head without its detector; found'),
    )
    for weights, message in cases:
        with pytest.raises(ValueError, match=message):
            convert_file(save(weights, tmp_path / 'source.pth'), tmp_path / 'no.pth')
    assert not (tmp_path / 'no.pth').exists()


def test_side_entry_with_a_mask_head_that_does_not_fit_is_named(official, tmp_path):
    convert_file(save(official, tmp_path / 'source.pth'), tmp_path / 'plugin.pth')
    content = load(tmp_path / 'plugin.pth')
    for name, message in (('mask_head.lay1.bias', 'and the weights have it too'), ('mask_head.lay9.bias', 'which has no place')):
        content['detr_source']['aside'] = {name: torch.zeros(40)}
        torch.save(content, tmp_path / 'changed.pth')
        with pytest.raises(ValueError, match=f'entry detr_source of the file is not one .*aside has {name}, {message}'):
            convert_file(tmp_path / 'changed.pth', tmp_path / 'no.pth')
