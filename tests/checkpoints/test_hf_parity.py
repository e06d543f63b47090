"""HF transformers' ``DetrForObjectDetection`` and the plugin compute the same from the same weights.

Ran against transformers 5.23.0 with its native ResNet (neither timm nor torchvision installed) and ``auxiliary_loss=False``: with auxiliary
losses on, it feeds the normed state into the next decoder layer.
"""

import json

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_detr_plugin.checkpoints.class_rows import COCO_ROWS
from mmdet_detr_plugin.checkpoints.convert_file import convert_file

from ..builders import NUM_CLASSES, build, detr_config, make_batch
from . import layouts
from .test_conversion import assert_same_weights, load, write_config

transformers = pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.torch')
SHAPES, COUNTS = [(96, 160), (128, 90)], [3, 2]


def hf_model(kind: str = 'DetrForObjectDetection', stages: tuple[int, ...] = (4,), **changes) -> nn.Module:
    """The small DETR of these tests, with every norm randomised and matrices of the usual size."""
    backbone = transformers.ResNetConfig(
        layer_type='basic',
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        embedding_size=64,
        out_features=[f'stage{stage}' for stage in stages],
    )
    config = dict(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=10,
        num_labels=NUM_CLASSES,
        auxiliary_loss=False,
        dropout=0.0,
    )
    model = getattr(transformers, kind)(transformers.DetrConfig(**{**config, **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'norm' in name:  # layer and group norms, and the backbone's frozen batch norms
                positive = name.endswith(('running_var', 'weight'))
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if positive else -0.5))
            elif value.dim() == 2:  # HF starts so small that queries hardly matter
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """HF's model, and the plugin's with the weights of HF's file."""
    folder = tmp_path_factory.mktemp('hf')
    torch.manual_seed(0)
    theirs = hf_model()
    theirs.save_pretrained(folder / 'model')
    convert_file(folder / 'model' / 'model.safetensors', folder / 'plugin.pth')
    ours = build(detr_config(backbone=dict(norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False)), neck=dict(dropout=0.0)))
    ours.load_state_dict(load(folder / 'plugin.pth')['state_dict'], strict=True)
    return theirs, ours, folder


def hf_inputs(batch: dict) -> dict:
    """Pixel mask (1 = image) and normalised boxes."""
    mask = torch.zeros(len(batch['batch_inputs']), *batch['batch_inputs'].shape[-2:], dtype=torch.long)
    labels = []
    for index, sample in enumerate(batch['batch_data_samples']):
        height, width = sample.img_shape
        mask[index, :height, :width] = 1
        boxes = sample.gt_instances.bboxes
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        labels.append(
            dict(class_labels=sample.gt_instances.labels, boxes=torch.cat((centres, sizes), 1) / torch.tensor([width, height] * 2))
        )
    return dict(pixel_values=batch['batch_inputs'], pixel_mask=mask, labels=labels)


def test_outputs_equal_hfs_on_a_padded_batch(pair):
    theirs, ours, _ = pair
    batch = make_batch(SHAPES, COUNTS)
    with torch.no_grad():
        expected = theirs.eval()(**hf_inputs(batch))
        logits, boxes = ours.eval()(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')
    assert logits.shape == (3, 2, 10, NUM_CLASSES + 1)
    torch.testing.assert_close(logits[-1], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[-1], expected.pred_boxes, atol=1e-4, rtol=0)


def test_loss_and_gradients_from_the_projection_on_equal_hfs(pair, tmp_path):
    theirs, ours, _ = pair
    batch = make_batch(SHAPES, COUNTS)
    theirs.train(), ours.train()
    theirs.model.backbone.eval()
    theirs.zero_grad(), ours.zero_grad()
    expected = theirs(**hf_inputs(batch))
    expected.loss.backward()
    losses = ours(inputs=batch['batch_inputs'], data_samples=batch['batch_data_samples'], mode='loss')
    loss = losses['loss_cls'] + losses['loss_bbox'] + losses['loss_iou']
    loss.backward()
    torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=0)

    # both sides' gradients under one side's names, through the conversion that is tested elsewhere
    gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None and 'backbone' not in name}
    safetensors.save_file(
        {**{name: value.contiguous() for name, value in theirs.state_dict().items()}, **gradients}, tmp_path / 'g.safetensors'
    )
    convert_file(tmp_path / 'g.safetensors', tmp_path / 'g.pth')
    converted = load(tmp_path / 'g.pth')['state_dict']
    compared = [name for name, value in ours.named_parameters() if not name.startswith('backbone.') and value.grad is not None]
    assert len(compared) == 2 * 12 + 3 * 18 + 2 + 2 + 1 + 2 + 6
    for name in compared:
        difference = (dict(ours.named_parameters())[name].grad - converted[name]).norm() / converted[name].norm().clamp(min=1e-6)
        assert difference < 1e-3, (name, difference)


def test_files_and_state_dicts_of_hf_come_back_bit_equal(pair, tmp_path):
    theirs, _, folder = pair
    file = safetensors.load_file(folder / 'model' / 'model.safetensors')
    convert_file(folder / 'plugin.pth', tmp_path / 'back.safetensors', to='hf')
    assert_same_weights(safetensors.load_file(tmp_path / 'back.safetensors'), file)
    torch.save(theirs.state_dict(), tmp_path / 'memory.bin')
    convert_file(tmp_path / 'memory.bin', tmp_path / 'plugin.pth')
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.bin', to='hf')
    assert_same_weights(load(tmp_path / 'back.bin'), theirs.state_dict())
    assert_same_weights(load(tmp_path / 'plugin.pth')['state_dict'], load(folder / 'plugin.pth')['state_dict'])


def test_files_with_timms_resnet_come_back_bit_equal(pair, tmp_path):
    """The layout of the published facebook/detr-resnet-50: timm's names, 92 class rows, stray counters."""
    _, _, folder = pair
    native = safetensors.load_file(folder / 'model' / 'model.safetensors')
    prefix = 'model.backbone.conv_encoder.model.'
    timm = {name: value for name, value in native.items() if not name.startswith(prefix)}
    timm |= {prefix + name: value for name, value in layouts.filled(layouts.resnet()).items()}
    timm |= {'class_labels_classifier.weight': torch.randn(92, 32), 'class_labels_classifier.bias': torch.arange(92.0)}
    timm[prefix + 'layer2.0.downsample.1.num_batches_tracked'] = torch.tensor(0)
    safetensors.save_file(timm, tmp_path / 'timm.safetensors')
    lines = convert_file(tmp_path / 'timm.safetensors', tmp_path / 'plugin.pth')
    assert 'hf (timm ResNet, file names)' in lines[0]
    assert load(tmp_path / 'plugin.pth')['state_dict']['bbox_head.fc_cls.bias'][-2:].tolist() == [90, 91]
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.safetensors', to='hf')
    assert_same_weights(safetensors.load_file(tmp_path / 'back.safetensors'), timm)
    # as published, with labels by category id and N/A between them; a folder comes back whole
    names = {row: name for name, row in COCO_ROWS.items()}
    (tmp_path / 'config.json').write_text(json.dumps(dict(id2label={str(row): names.get(row, 'N/A') for row in range(91)})))
    convert_file(tmp_path / 'timm.safetensors', tmp_path / 'plugin.pth')
    assert load(tmp_path / 'plugin.pth')['meta']['dataset_meta']['classes'] == tuple(COCO_ROWS)
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'folder', to='hf')
    assert len(json.loads((tmp_path / 'folder' / 'config.json').read_text())['id2label']) == 91
    convert_file(tmp_path / 'folder', tmp_path / 'again.pth')
    assert_same_weights(load(tmp_path / 'again.pth')['state_dict'], load(tmp_path / 'plugin.pth')['state_dict'])


def test_hf_loads_the_folder_of_a_model_trained_here(tmp_path):
    classes = tuple('abcde')
    ours = build(detr_config(neck=dict(num_heads=8)), randomize_norms=True).eval()
    torch.save(dict(state_dict=ours.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'folder', to='hf')
    assert json.loads((tmp_path / 'folder' / 'preprocessor_config.json').read_text())['size'] == dict(shortest_edge=800, longest_edge=1333)
    theirs, report = transformers.DetrForObjectDetection.from_pretrained(tmp_path / 'folder', output_loading_info=True)
    assert not report['missing_keys'] and not report['unexpected_keys'] and not report['mismatched_keys']
    assert [theirs.config.id2label[index] for index in range(5)] == list(classes)
    batch = make_batch(SHAPES, COUNTS)
    with torch.no_grad():
        expected = theirs.eval()(**hf_inputs(batch))
        logits, boxes = ours(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')
    torch.testing.assert_close(logits[-1], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[-1], expected.pred_boxes, atol=1e-4, rtol=0)
    # and class names come back
    convert_file(tmp_path / 'folder' / 'model.safetensors', tmp_path / 'again.pth')
    assert load(tmp_path / 'again.pth')['meta']['dataset_meta']['classes'] == classes


@pytest.mark.parametrize(
    'backbone, message',
    [
        (dict(type='mmdet_detr_plugin.ResNetDC5'), "HF's own ResNet has no dilation; write DC5 weights with --hf-backbone timm"),
        (dict(strides=(1, 2, 2, 1)), r'hf has no ResNet with strides \(1, 2, 2, 1\) and dilations'),
    ],
)
def test_backbones_that_hf_does_not_have_are_refused(backbone, message, tmp_path):
    """Strides and dilation leave no trace in the weights."""
    ours = build(detr_config(backbone=backbone))
    torch.save(dict(state_dict=ours.state_dict(), meta={}), tmp_path / 'trained.pth')
    config = write_config(tmp_path, backbone=backbone, bbox_head=dict(num_classes=NUM_CLASSES))
    with pytest.raises(ValueError, match=message):
        convert_file(tmp_path / 'trained.pth', tmp_path / 'folder', to='hf', config=config)
    assert not (tmp_path / 'folder').exists()


def test_dc5_goes_to_hf_with_timms_backbone_and_its_heads(tmp_path):
    backbone = dict(type='mmdet_detr_plugin.ResNetDC5')
    torch.save(dict(state_dict=build(detr_config(backbone=backbone)).state_dict(), meta={}), tmp_path / 'trained.pth')
    config = write_config(tmp_path, backbone=backbone, bbox_head=dict(num_classes=NUM_CLASSES))
    convert_file(tmp_path / 'trained.pth', tmp_path / 'folder', to='hf', config=config, hf_backbone='timm')
    settings = json.loads((tmp_path / 'folder' / 'config.json').read_text())
    assert settings['dilation'] and settings['use_timm_backbone'] and settings['backbone'] == 'resnet18'
    assert settings['encoder_attention_heads'] == settings['decoder_attention_heads'] == 4


def test_learned_positions_equal_hfs(tmp_path):
    theirs = hf_model(position_embedding_type='learned')
    theirs.save_pretrained(tmp_path / 'model')
    convert_file(tmp_path / 'model' / 'model.safetensors', tmp_path / 'plugin.pth')
    learned = dict(type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=16)
    ours = MODELS.build(detr_config(neck=dict(position_encoding=learned))).eval()
    ours.load_state_dict(load(tmp_path / 'plugin.pth')['state_dict'], strict=True)
    batch = make_batch(SHAPES, COUNTS)
    with torch.no_grad():
        expected = theirs.eval()(**hf_inputs(batch))
        logits, _ = ours(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')
    torch.testing.assert_close(logits[-1], expected.logits, atol=1e-4, rtol=0)


def test_dc5_equals_hfs_resnet_dilated_by_hand(tmp_path):
    """As torchvision does it: the last stage keeps its stride, all its blocks but the first are dilated."""
    backbone = transformers.ResNetConfig(layer_type='bottleneck', depths=[3, 4, 6, 3], out_features=['stage4'])
    theirs = hf_model(backbone_config=backbone)
    theirs.save_pretrained(tmp_path / 'model')
    stage = theirs.model.backbone.model.encoder.stages[3]
    stage.layers[0].shortcut.convolution.stride = stage.layers[0].layer[1].convolution.stride = (1, 1)
    for block in stage.layers[1:]:
        block.layer[1].convolution.dilation = block.layer[1].convolution.padding = (2, 2)
    convert_file(tmp_path / 'model' / 'model.safetensors', tmp_path / 'plugin.pth')
    outputs = {}
    batch = make_batch([(64, 96), (96, 80)], COUNTS)
    for kind in ('mmdet_detr_plugin.ResNetDC5', 'mmdet.ResNet'):
        dilated = dict() if 'DC5' in kind else dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
        ours = MODELS.build(detr_config(backbone=dict(type=kind, depth=50, **dilated), neck=dict(in_channels=2048))).eval()
        ours.load_state_dict(load(tmp_path / 'plugin.pth')['state_dict'], strict=True)
        with torch.no_grad():
            outputs[kind] = ours(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')[0][-1]
    with torch.no_grad():
        expected = theirs.eval()(**hf_inputs(batch)).logits
    torch.testing.assert_close(outputs['mmdet_detr_plugin.ResNetDC5'], expected, atol=1e-4, rtol=0)
    assert (outputs['mmdet.ResNet'] - expected).abs().max() > 1e-2  # mmdet's dilation loads the same weights and computes something else
