"""What a DETR's weights say about its architecture, and the shapes that a config expects."""

import copy
import re
from collections import Counter

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
DEPTHS = {
    ('basic', (2, 2, 2, 2)): 18,
    ('basic', (3, 4, 6, 3)): 34,
    ('bottleneck', (3, 4, 6, 3)): 50,
    ('bottleneck', (3, 4, 23, 3)): 101,
    ('bottleneck', (3, 8, 36, 3)): 152,
}


def shapes_of(state: dict[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state.items()}


def resnet_layout(shapes: Shapes) -> tuple[str, tuple[int, ...]]:
    """Kind of block and number of blocks of each stage."""
    blocks = {match.groups() for name in shapes if (match := re.match(r'backbone\.layer(\d)\.(\d+)\.', name))}
    counts = Counter(stage for stage, _ in blocks)
    return ('bottleneck' if 'backbone.layer1.0.conv3.weight' in shapes else 'basic'), tuple(counts[stage] for stage in '1234')


def infer_model(shapes: Shapes) -> dict:
    """A model config for weights of these shapes, under the plugin's names.

    The number of attention heads and dilation (DC5) leave no trace in the weights; heads are taken for 8 where that is possible.

    Raises:
        ValueError: when the backbone is no ResNet.
    """
    layout = resnet_layout(shapes)
    if layout not in DEPTHS:
        raise ValueError(f'the backbone is no ResNet-18, 34, 50, 101 or 152: it has {layout[0]} blocks, {layout[1]} in its stages')
    num_queries, dims = _shape(shapes, 'neck.query_embed.weight')
    is_demo = any(name.startswith('neck.transformer.') for name in shapes)
    prefix = 'neck.transformer' if is_demo else 'neck'
    neck = dict(
        type='mmdet_detr_plugin.DemoNeck' if is_demo else 'mmdet_detr_plugin.TransformerNeck',
        in_channels=_shape(shapes, 'neck.input_proj.weight')[1],
        embed_dims=dims,
        num_heads=8 if dims % 8 == 0 else 1,
        num_encoder_layers=_count(shapes, f'{prefix}.encoder'),
        num_decoder_layers=_count(shapes, f'{prefix}.decoder'),
        feedforward_channels=_shape(shapes, f'{prefix}.decoder.layers.0.linear1.weight')[0],
        num_queries=num_queries,
    )
    if not is_demo:
        neck['pre_norm'] = 'neck.encoder.norm.weight' in shapes
    if 'neck.position_encoding.row_embed.weight' in shapes and not is_demo:
        rows, cols = (_shape(shapes, f'neck.position_encoding.{axis}_embed.weight')[0] for axis in ('row', 'col'))
        neck['position_encoding'] = dict(
            type='mmdet_detr_plugin.LearnedPositionEncoding', num_feats=dims // 2, num_rows=rows, num_cols=cols
        )
    num_classes = _shape(shapes, 'bbox_head.fc_cls.weight')[0] - 1
    return dict(
        type='mmdet_detr_plugin.DETR',
        backbone=dict(
            type='mmdet.ResNet',
            depth=DEPTHS[layout],
            out_indices=(3,),
            stem_channels=_shape(shapes, 'backbone.conv1.weight')[0],
            base_channels=_shape(shapes, 'backbone.layer1.0.conv1.weight')[0],
        ),
        neck=neck,
        bbox_head=dict(
            type='mmdet_detr_plugin.DETRHead', num_classes=num_classes, embed_dims=dims, num_box_layers=_count(shapes, 'bbox_head.box_mlp')
        ),
    )


def describe(shapes: Shapes) -> str:
    """One line for people."""
    model = infer_model(shapes)
    neck = model['neck']
    kind = 'the demo model' if 'pre_norm' not in neck else 'pre-norm' if neck['pre_norm'] else 'post-norm'
    return (
        f'ResNet-{model["backbone"]["depth"]}, {neck["num_encoder_layers"]} + {neck["num_decoder_layers"]} layers of {neck["embed_dims"]} '
        f'channels, {kind}, {neck["num_queries"]} queries, {model["bbox_head"]["num_classes"]} classes'
    )


def model_shapes(model: dict) -> Shapes:
    """Names and shapes of a config's parameters and buffers."""
    init_default_scope('mmdet')
    model = copy.deepcopy(model)
    model['backbone']['init_cfg'] = None
    model.pop('training_aids', None)  # of which no checkpoint for use holds anything
    return shapes_of(MMDET_MODELS.build(model).state_dict())


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(f'the file has nothing that becomes {name}; it is not whole')
    return shapes[name]


def _count(shapes: Shapes, part: str) -> int:
    layers = {int(match[1]) for name in shapes if (match := re.match(rf'{re.escape(part)}\.layers\.(\d+)\.', name))}
    return max(layers, default=-1) + 1
