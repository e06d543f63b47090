"""What a DETR's weights say about its architecture, and the shapes that a config expects."""

import copy
import re
from collections import Counter

from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from .class_rows import COCO_CLASSES, PANOPTIC_ROWS
from .formats import MASK_HEAD

Shapes = dict[str, tuple[int, ...]]
FIRST_CONV = 'mask_head.mask_convs.convs.0.weight'
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


def attention_maps(shapes: Shapes) -> int | None:
    """How many attention heads the mask head has; None without a mask head.

    Raises:
        ValueError: when it is not whole, or its channels are none of a mask head's.
    """
    if not any(name.startswith(MASK_HEAD) for name in shapes):
        return None
    channels, dims = _shape(shapes, FIRST_CONV)[0], _shape(shapes, 'neck.query_embed.weight')[1]
    maps = channels - dims
    if maps < 1 or dims % maps:
        raise ValueError(
            f"the mask head's first convolution has {channels} channels; expected the transformer's {dims} and one for each attention "
            f'head, a divisor of {dims}'
        )
    return maps


def infer_model(shapes: Shapes) -> dict:
    """A model config for weights of these shapes, under the plugin's names.

    The transformer's attention heads and dilation (DC5) leave no trace in the weights; heads are taken to be as many as in the mask head,
    and without one for 8 where that is possible. So are the things of a panoptic model, for COCO's 80 or all.

    Raises:
        ValueError: when the backbone is no ResNet.
    """
    layout = resnet_layout(shapes)
    if layout not in DEPTHS:
        raise ValueError(f'the backbone is no ResNet-18, 34, 50, 101 or 152: it has {layout[0]} blocks, {layout[1]} in its stages')
    num_queries, dims = _shape(shapes, 'neck.query_embed.weight')
    maps = attention_maps(shapes)
    is_demo = any(name.startswith('neck.transformer.') for name in shapes)
    prefix = 'neck.transformer' if is_demo else 'neck'
    neck = dict(
        type='mmdet_detr_plugin.DemoNeck' if is_demo else 'mmdet_detr_plugin.TransformerNeck',
        in_channels=_shape(shapes, 'neck.input_proj.weight')[1],
        embed_dims=dims,
        num_heads=maps or (8 if dims % 8 == 0 else 1),
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
    model = dict(
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
    return model if maps is None else _with_mask_head(model, shapes, maps)


def _with_mask_head(model: dict, shapes: Shapes, maps: int) -> dict:
    num_classes = model['bbox_head']['num_classes']
    num_things = len(COCO_CLASSES) if num_classes == len(PANOPTIC_ROWS) else num_classes
    in_channels = tuple(_shape(shapes, f'mask_head.mask_convs.adapters.{index}.weight')[1] for index in (2, 1, 0))
    mask_head = dict(type='mmdet_detr_plugin.DETRMaskHead', in_channels=in_channels, embed_dims=model['neck']['embed_dims'], num_heads=maps)
    return model | dict(
        type='mmdet_detr_plugin.PanopticDETR',
        backbone=model['backbone'] | dict(out_indices=(0, 1, 2, 3)),
        mask_head=mask_head,
        num_things_classes=num_things,
        num_stuff_classes=num_classes - num_things,
    )


def describe(shapes: Shapes) -> str:
    """One line for people."""
    model = infer_model(shapes)
    neck = model['neck']
    mask_head = f', mask head of {model["mask_head"]["num_heads"]} attention heads' if 'mask_head' in model else ''
    kind = 'the demo model' if 'pre_norm' not in neck else 'pre-norm' if neck['pre_norm'] else 'post-norm'
    return (
        f'ResNet-{model["backbone"]["depth"]}, {neck["num_encoder_layers"]} + {neck["num_decoder_layers"]} layers of {neck["embed_dims"]} '
        f'channels, {kind}, {neck["num_queries"]} queries, {model["bbox_head"]["num_classes"]} classes{mask_head}'
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
