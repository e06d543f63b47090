"""The models that are compared: the plugin's, mmdet's with the same settings, HF's, Faster R-CNN; equal weights where they are DETRs."""

import copy
import importlib.util
import logging
import sys
import types
from pathlib import Path

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..checkpoints.formats import FORMATS, to_other_names
from ..checkpoints.hf_files import detr_config
from ..config_files import config_path

HAS_HF = importlib.util.find_spec('transformers') is not None
HF_FORMAT = FORMATS['hf', 'native ResNet, state_dict names']


def model_config(name: str, **neck) -> dict:
    """The model of a shipped config, without pretrained weights."""
    model = Config.fromfile(config_path(name)).model.to_dict()
    model['backbone']['init_cfg'] = None
    model.get('neck', {}).update(neck)
    return model


def build(model: dict, device: str = 'cpu') -> nn.Module:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    built = MMDET_MODELS.build(ConfigDict(copy.deepcopy(model)))
    logging.disable(logging.INFO)  # mmengine tells of every parameter
    built.init_weights()
    logging.disable(logging.NOTSET)
    _randomize(built)
    return built.to(device)


def _randomize(model: nn.Module) -> None:
    """As after training: where residual branches start at zero, all statistics are alike, or all queries see the same, errors hide."""
    generator = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.8, 1.2, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        if hasattr(module, 'in_proj_weight'):
            module.in_proj_weight.data.mul_(2)
            module.out_proj.weight.data.mul_(0.1 if 'encoder' in name else 4)
        if isinstance(module, nn.Linear) and 'box_mlp' in name:
            module.weight.data.mul_(2)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 0.9, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


def equal_detrs(name: str, device: str = 'cpu', hf: bool = HAS_HF, **neck) -> dict[str, nn.Module]:
    """``plugin``, ``mmdet`` and, where transformers is installed, ``HF``: one config's DETR, with equal weights."""
    config = model_config(name, **neck)
    plugin = build(config, device)
    mmdet = build(mmdet_config(config), device)
    mmdet.load_state_dict(to_other_names(plugin.state_dict(), FORMATS['mmdet', ''], {}))
    return dict(plugin=plugin, mmdet=mmdet, **(dict(HF=hf_model(plugin.state_dict()).to(device)) if hf else {}))


def mmdet_config(model: dict) -> dict:
    """mmdet's DETR in the place of the plugin's, with the same sizes, losses and pre-processing."""
    neck, head, backbone = model['neck'], model['bbox_head'], copy.deepcopy(model['backbone'])
    if backbone['type'].endswith('ResNetDC5'):
        backbone.update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    backbone['type'] = 'ResNet'
    dims, dropout = neck['embed_dims'], neck.get('dropout', 0.1)
    attention = dict(embed_dims=dims, num_heads=neck.get('num_heads', 8), dropout=dropout, batch_first=True)
    feedforward = dict(
        embed_dims=dims,
        feedforward_channels=neck['feedforward_channels'],
        num_fcs=2,
        ffn_drop=dropout,
        act_cfg=dict(type='ReLU', inplace=True),
    )
    encoder_layer = dict(self_attn_cfg=attention, ffn_cfg=feedforward)
    return dict(
        type='DETR',
        num_queries=neck['num_queries'],
        data_preprocessor=model['data_preprocessor'],
        backbone=backbone,
        neck=dict(
            type='ChannelMapper',
            in_channels=[neck['in_channels']],
            kernel_size=1,
            out_channels=dims,
            act_cfg=None,
            norm_cfg=None,
            num_outs=1,
        ),
        encoder=dict(num_layers=neck['num_encoder_layers'], layer_cfg=encoder_layer),
        decoder=dict(
            num_layers=neck['num_decoder_layers'], layer_cfg=dict(**encoder_layer, cross_attn_cfg=attention), return_intermediate=True
        ),
        positional_encoding=dict(num_feats=dims // 2, normalize=True),
        bbox_head=mmdet_head_config(head['num_classes'], dims),
        train_cfg=MMDET_TRAIN_CFG,
        test_cfg=dict(max_per_img=neck['num_queries']),
    )


def mmdet_head_config(num_classes: int, dims: int = 256) -> dict:
    return dict(
        type='DETRHead',
        num_classes=num_classes,
        embed_dims=dims,
        loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    )


MMDET_TRAIN_CFG = dict(
    assigner=dict(
        type='HungarianAssigner',
        match_costs=[
            dict(type='ClassificationCost', weight=1.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ],
    )
)


def hf_model(state: dict[str, Tensor]) -> nn.Module:
    """transformers' ``DetrForObjectDetection`` with the plugin's weights and transformers' own ResNet."""
    import transformers

    config = detr_config(state, None, 8, native_resnet=True)
    config['backbone_config'] = transformers.ResNetConfig(**config['backbone_config'])
    model = transformers.DetrForObjectDetection(transformers.DetrConfig(**config))
    weights = to_other_names({name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}, HF_FORMAT, {})
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise RuntimeError(f'transformers {transformers.__version__} names weights otherwise: missing {missing}, unexpected {unexpected}')
    return model


def official_criterion(checkout: Path, num_classes: int) -> nn.Module:
    """facebookresearch/detr's ``SetCriterion`` from a checkout of that repository.

    It imports torchvision, of which the criterion needs one function; where it is not installed a stand-in has that one.

    Raises:
        FileNotFoundError: when the folder is no such checkout.
    """
    if not (checkout / 'models' / 'matcher.py').is_file():
        raise FileNotFoundError(f'{checkout} is no checkout of https://github.com/facebookresearch/detr (models/matcher.py is not there)')
    stand_ins = _stand_in_for_torchvision() if importlib.util.find_spec('torchvision') is None else []
    sys.path.insert(0, str(checkout))
    try:
        from models.detr import SetCriterion
        from models.matcher import HungarianMatcher
    finally:
        sys.path.remove(str(checkout))
        for name in stand_ins:
            del sys.modules[name]
    weights = dict(loss_ce=1.0, loss_bbox=5.0, loss_giou=2.0)
    matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
    return SetCriterion(num_classes, matcher, weights, eos_coef=0.1, losses=['labels', 'boxes'])


def _stand_in_for_torchvision() -> list[str]:
    names = ('torchvision', 'torchvision.ops', 'torchvision.ops.boxes', 'torchvision.models', 'torchvision.models._utils')
    modules = {name: types.ModuleType(name) for name in names}
    modules['torchvision'].__version__ = '0.20'
    modules['torchvision.ops.boxes'].box_area = lambda boxes: (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    modules['torchvision.models._utils'].IntermediateLayerGetter = object
    for name, module in modules.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition('.')
        if parent:
            setattr(modules[parent], child, module)
    return list(modules)
