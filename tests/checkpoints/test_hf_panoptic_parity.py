"""HF transformers' ``DetrForSegmentation`` and the plugin's PanopticDETR compute the same from the same weights.

Ran against transformers 5.23.0 with its native ResNet and ``auxiliary_loss=False``.
"""

import copy
import json

import pytest
import torch

from mmdet_detr_plugin.checkpoints.class_rows import PANOPTIC_ROWS
from mmdet_detr_plugin.checkpoints.convert_file import convert_file
from mmdet_detr_plugin.checkpoints.formats import FORMATS, recognise
from mmdet_detr_plugin.models.panoptic.segments import with_stuff_objects

from ..builders import build
from ..models.panoptic.builders import STUFF, THINGS, panoptic_batch, panoptic_config
from . import layouts
from .test_conversion import assert_same_weights, load
from .test_hf_parity import hf_inputs, hf_model

transformers = pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.torch')
SHAPES, COUNTS = [(96, 160), (128, 90)], [3, 2]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """HF's model, and the plugin's with the weights of HF's file."""
    folder = tmp_path_factory.mktemp('hf')
    torch.manual_seed(0)
    heads = dict(encoder_attention_heads=8, decoder_attention_heads=8)
    theirs = hf_model('DetrForSegmentation', stages=(1, 2, 3, 4), num_labels=THINGS + STUFF, **heads)
    with torch.no_grad():
        for name, value in theirs.mask_head.named_parameters():
            if name.endswith(('conv.bias', 'adapter.bias')):  # 0 at first, which hides errors
                value.normal_(std=0.3)
        # at first all queries look at the same, and what they see drowns in the features
        theirs.detr.model.query_position_embeddings.weight.mul_(10)
        theirs.bbox_attention.q_proj.weight.mul_(3)
        theirs.mask_head.conv1.conv.weight[:, 32:].mul_(100)
        for stage in theirs.mask_head.fpn_stages:
            stage.fpn_adapter.weight.mul_(0.1)
    theirs.save_pretrained(folder / 'model')
    convert_file(folder / 'model' / 'model.safetensors', folder / 'plugin.pth')
    frozen = dict(norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
    ours = build(panoptic_config(backbone=frozen, neck=dict(dropout=0.0, num_heads=8)))
    ours.load_state_dict(load(folder / 'plugin.pth')['state_dict'], strict=True)
    return theirs, ours, folder


def hf_batch(batch: dict) -> dict:
    """Things and stuff as HF's labels, with masks of the batch's size."""
    samples = with_stuff_objects(copy.deepcopy(batch['batch_data_samples']), THINGS, THINGS + STUFF)
    inputs = hf_inputs(dict(batch_inputs=batch['batch_inputs'], batch_data_samples=samples))
    for labels, sample in zip(inputs['labels'], samples, strict=True):
        labels['masks'] = sample.gt_instances.masks.float()
    return inputs


def test_outputs_equal_hfs_on_a_padded_batch(pair):
    theirs, ours, _ = pair
    batch = panoptic_batch(SHAPES, COUNTS)
    with torch.no_grad():
        expected = theirs.eval()(**hf_batch(batch))
        logits, boxes, masks = ours.eval()(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')
    assert masks.shape == (2, 10, 32, 40) and masks.std() > 0.1
    assert masks.std(1).mean() > 1e-3  # queries differ by more than is tolerated
    torch.testing.assert_close(logits[-1], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[-1], expected.pred_boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(masks, expected.pred_masks, atol=1e-4, rtol=0)


def test_losses_and_gradients_equal_hfs(pair, tmp_path):
    theirs, ours, _ = pair
    batch = panoptic_batch(SHAPES, COUNTS)
    theirs.train(), ours.train()
    theirs.zero_grad(), ours.zero_grad()
    expected = theirs(**hf_batch(batch))
    expected.loss.backward()
    losses = ours(inputs=batch['batch_inputs'], data_samples=batch['batch_data_samples'], mode='loss')
    loss = sum(losses[f'loss_{name}'] for name in ('cls', 'bbox', 'iou', 'mask', 'dice'))
    loss.backward()
    torch.testing.assert_close(losses['loss_mask'], expected.loss_dict['loss_mask'], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses['loss_dice'], expected.loss_dict['loss_dice'], rtol=1e-5, atol=0)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=0)

    # HF's gradients under the plugin's names, by the conversion
    gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None and 'backbone' not in name}
    state = {name: value.contiguous() for name, value in theirs.state_dict().items()}
    safetensors.save_file(state | gradients, tmp_path / 'g.safetensors')
    convert_file(tmp_path / 'g.safetensors', tmp_path / 'g.pth')
    converted = load(tmp_path / 'g.pth')['state_dict']
    compared = {name: value.grad for name, value in ours.named_parameters() if not name.startswith('backbone.') and value.grad is not None}
    assert len([name for name in compared if name.startswith('mask_head.')]) == len(layouts.mask_head())
    assert len(compared) == len(layouts.mask_head()) + 2 * 12 + 3 * 18 + 2 + 2 + 1 + 2 + 6
    for name, gradient in compared.items():
        assert (gradient - converted[name]).norm() <= 1e-3 * converted[name].norm() + 1e-6, name


def test_files_and_state_dicts_of_hf_come_back_bit_equal(pair, tmp_path):
    theirs, _, folder = pair
    file = safetensors.load_file(folder / 'model' / 'model.safetensors')
    assert recognise(file) is FORMATS['hf', 'native ResNet, file names']
    assert layouts.mask_head().keys() <= file.keys()  # the official names
    convert_file(folder / 'plugin.pth', tmp_path / 'back.safetensors', to='hf')
    assert_same_weights(safetensors.load_file(tmp_path / 'back.safetensors'), file)
    torch.save(theirs.state_dict(), tmp_path / 'memory.bin')
    assert recognise(theirs.state_dict()) is FORMATS['hf', 'native ResNet, state_dict names']
    convert_file(tmp_path / 'memory.bin', tmp_path / 'plugin.pth')
    assert_same_weights(load(tmp_path / 'plugin.pth')['state_dict'], load(folder / 'plugin.pth')['state_dict'])
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.bin', to='hf')
    assert_same_weights(load(tmp_path / 'back.bin'), theirs.state_dict())
    # by way of the official names
    convert_file(folder / 'plugin.pth', tmp_path / 'official.pth', to='official')
    convert_file(tmp_path / 'official.pth', tmp_path / 'again.pth')
    assert_same_weights(load(tmp_path / 'again.pth')['state_dict'], load(folder / 'plugin.pth')['state_dict'])


@pytest.mark.parametrize('are_named', [False, True])
def test_files_as_published_become_cocos_classes(pair, are_named, tmp_path):
    """facebook/detr-resnet-50-panoptic has timm's names, 251 class rows, and labels that are numbers or category names."""
    _, _, folder = pair
    native = safetensors.load_file(folder / 'model' / 'model.safetensors')
    prefix = 'detr.model.backbone.conv_encoder.model.'
    timm = {name: value for name, value in native.items() if not name.startswith(prefix)}
    timm |= {prefix + name: value for name, value in layouts.filled(layouts.resnet()).items()}
    timm |= {'detr.class_labels_classifier.weight': torch.randn(251, 32), 'detr.class_labels_classifier.bias': torch.arange(251.0)}
    safetensors.save_file(timm, tmp_path / 'model.safetensors')
    names = {row: name for name, row in PANOPTIC_ROWS.items()}
    labels = {str(row): names.get(row, 'N/A') if are_named else f'LABEL_{row}' for row in range(250)}
    (tmp_path / 'config.json').write_text(json.dumps(dict(id2label=labels)))
    lines = convert_file(tmp_path, tmp_path / 'plugin.pth')
    assert 'hf (timm ResNet, file names)' in lines[0]
    checkpoint = load(tmp_path / 'plugin.pth')
    assert checkpoint['state_dict']['bbox_head.fc_cls.bias'].tolist() == [*PANOPTIC_ROWS.values(), 250]
    assert checkpoint['meta']['dataset_meta']['classes'] == tuple(PANOPTIC_ROWS)
    convert_file(tmp_path / 'plugin.pth', tmp_path / 'back.safetensors', to='hf')
    assert_same_weights(safetensors.load_file(tmp_path / 'back.safetensors'), timm)


def test_hf_loads_the_folder_of_a_model_trained_here(tmp_path):
    classes = tuple('abcde')
    torch.manual_seed(0)
    ours = build(panoptic_config(neck=dict(num_heads=8)), randomize_norms=True).eval()
    torch.save(dict(state_dict=ours.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'trained.pth')
    convert_file(tmp_path / 'trained.pth', tmp_path / 'folder', to='hf')
    assert json.loads((tmp_path / 'folder' / 'preprocessor_config.json').read_text())['format'] == 'coco_panoptic'
    theirs, report = transformers.DetrForSegmentation.from_pretrained(tmp_path / 'folder', output_loading_info=True)
    assert not report['missing_keys'] and not report['unexpected_keys'] and not report['mismatched_keys']
    assert [theirs.config.id2label[index] for index in range(5)] == list(classes)
    batch = panoptic_batch(SHAPES, COUNTS)
    with torch.no_grad():
        expected = theirs.eval()(**hf_batch(batch))
        logits, _, masks = ours(batch['batch_inputs'], batch['batch_data_samples'], mode='tensor')
    torch.testing.assert_close(logits[-1], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(masks, expected.pred_masks, atol=1e-4, rtol=0)
    convert_file(tmp_path / 'folder', tmp_path / 'again.pth')
    assert_same_weights(load(tmp_path / 'again.pth')['state_dict'], ours.state_dict())
    assert load(tmp_path / 'again.pth')['meta']['dataset_meta']['classes'] == classes
