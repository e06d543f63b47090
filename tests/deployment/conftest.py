"""Small detectors with random weights, exported once for all tests."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_detr_plugin.deployment.export import CAN_EXPORT
from mmdet_detr_plugin.deployment.runtime import OnnxDetector
from mmdet_detr_plugin.models import DETR

from ..builders import NUM_CLASSES, build, detr_config, randomize_norm_layers
from ..models.panoptic.builders import panoptic_config, panoptic_local_config

pytest.importorskip('onnxscript', reason="needs pip install 'mmdet_detr_plugin[onnx]'")


@pytest.fixture(autouse=True)
def exporter():
    if not CAN_EXPORT:
        pytest.skip(f'torch {torch.__version__} cannot export networks for images of any size')


PIPELINE = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
CLASSES = tuple('abcde')
LOCAL = dict(
    type='mmdet_detr_plugin.LocalDETR',
    data_preprocessor=detr_config()['data_preprocessor'],
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        depth=18,
        base_channels=16,
        stem_channels=16,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN'),
        norm_eval=True,
    ),
    neck=dict(type='mmdet_detr_plugin.PyramidEncoder', in_channels=(32, 64, 128), embed_dims=32, num_heads=4, feedforward_channels=64),
    bbox_head=dict(
        type='mmdet_detr_plugin.LocalDETRHead',
        num_classes=NUM_CLASSES,
        embed_dims=32,
        num_dense_levels=2,
        num_queries=12,
        num_decoder_layers=1,
        num_heads=4,
        feedforward_channels=64,
        value_dims=16,
    ),
)
SMALL = dict(num_encoder_layers=1, num_decoder_layers=2)
NARROW = dict(base_channels=16, stem_channels=16)
DETECTORS = {
    'post-norm R18 with reference points': detr_config(
        backbone=NARROW, neck=dict(in_channels=128, reference_points='learned', **SMALL), bbox_head=dict(zero_init_boxes=False)
    ),
    'pre-norm R50-DC5 with learned positions': detr_config(
        backbone=dict(
            type='mmdet_detr_plugin.ResNetDC5', depth=50, norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, **NARROW
        ),
        neck=dict(
            in_channels=512,
            pre_norm=True,
            position_encoding=dict(type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=16),
            **SMALL,
        ),
    ),
    'demo': detr_config(
        backbone=NARROW,
        neck=dict(type='mmdet_detr_plugin.DemoNeck', in_channels=128, **SMALL),
        bbox_head=dict(num_box_layers=1),
    ),
    'LocalDETR': LOCAL,
    'panoptic R18': panoptic_config(
        backbone=NARROW, neck=dict(in_channels=128, **SMALL), mask_head=dict(in_channels=(16, 32, 64)), test_cfg=dict(score_thr=0.2)
    ),
    'panoptic boxes': panoptic_config(backbone=NARROW, neck=dict(in_channels=128, **SMALL), mask_head=None),
    'panoptic LocalDETR': panoptic_local_config(num_decoder_layers=1, num_dense_levels=3) | dict(test_cfg=dict(score_thr=0.2)),
}


@dataclass
class Exported:
    cfg: Config
    detector: nn.Module
    checkpoint: Path
    file: Path
    onnx: OnnxDetector


def random_detector(config: dict) -> nn.Module:
    """In evaluation mode; queries, classes and boxes differ, so that a mistake shows."""
    torch.manual_seed(0)
    detector = build(config)
    randomize_norm_layers(detector)
    for name, parameter in detector.named_parameters():
        if 'query_embed' in name or 'fc_cls' in name or 'conv_cls' in name:
            nn.init.normal_(parameter, std=0.05 if 'conv_cls' in name else 0.5)  # no dense score so near 1 that it equals another
    detector.dataset_meta = dict(classes=CLASSES)
    detector.eval()
    if config.get('mask_head'):
        randomize_masks(detector)
    elif 'num_things_classes' in config:
        mix_things_and_stuff(detector)
    return detector


def randomize_masks(detector: nn.Module) -> None:
    """Every query finds something, and masks differ."""
    convs, dims = detector.mask_head.mask_convs, detector.mask_head.embed_dims
    if not isinstance(detector, DETR):
        for layer in detector.bbox_head.layers:
            nn.init.zeros_(layer.fc_cls.bias)
        convs.convs[0].weight.data[:, dims:] *= 10
        for parameter in (*detector.stuff_head.conv_cells.parameters(), detector.stuff_head.fc_present.weight):
            nn.init.normal_(parameter, std=0.3)
        return
    detector.bbox_head.fc_cls.bias.data[-1] -= 9
    for parameter in (*detector.neck.parameters(), *detector.mask_head.attention.parameters()):
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.3)  # queries look at different places
    convs.convs[0].weight.data[:, dims:] *= 100


@torch.no_grad()
def mix_things_and_stuff(detector: DETR) -> None:
    """Queries are sure of different classes, the same ones in most images."""
    for name, parameter in detector.neck.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=2 if 'query_embed' in name else 0.3)
    classifier = detector.bbox_head.fc_cls
    nn.init.normal_(classifier.weight, std=20)
    logits, _ = detector(torch.randn(1, 3, 96, 96), mode='tensor')  # (L, 1, Q, K + 1)
    classifier.bias -= logits[-1, 0].mean(0)


def write_config(model: dict, path: Path) -> Config:
    dataset = dict(type='CocoDataset', metainfo=dict(classes=CLASSES), pipeline=PIPELINE)
    content = dict(default_scope='mmdet', model=copy.deepcopy(model), test_dataloader=dict(dataset=dataset))
    Config(content).dump(path)
    return Config.fromfile(path)


@pytest.fixture(scope='session')
def export(tmp_path_factory):
    """By name of a detector, once."""
    from mmdet_detr_plugin.deployment.export import export_onnx

    folder, done = tmp_path_factory.mktemp('exported'), {}

    def get(name: str, **options: bool) -> Exported:
        key = (name, *sorted(options.items()))
        if key not in done:
            stem = str(len(done))
            detector = random_detector(DETECTORS[name])
            cfg = write_config(DETECTORS[name], folder / f'{stem}.py')
            torch.save(dict(state_dict=detector.state_dict()), folder / f'{stem}.pth')
            export_onnx(cfg, detector, folder / f'{stem}.onnx', **options)
            done[key] = Exported(cfg, detector, folder / f'{stem}.pth', folder / f'{stem}.onnx', OnnxDetector(folder / f'{stem}.onnx'))
        return done[key]

    return get
