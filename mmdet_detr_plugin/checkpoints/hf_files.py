"""The configuration files that HF transformers wants beside the weights."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .architecture import infer_model, resnet_layout, shapes_of


def classes_of(folder: Path) -> tuple[str, ...] | None:
    """Class names in row order, from the ``config.json`` of a folder; None when there is none."""
    path = folder / 'config.json'
    if not path.is_file():
        return None
    labels = json.loads(path.read_text()).get('id2label') or {}
    return tuple(labels[key] for key in sorted(labels, key=int)) or None


def detr_config(state: dict[str, Tensor], classes: Sequence[str] | None, num_heads: int, native_resnet: bool) -> dict:
    """``config.json`` of a ``DetrForObjectDetection``.

    Args:
        state: weights under the plugin's names.
        classes: names of the classes; numbered ones where they are not known.
        num_heads: attention heads, which the weights do not tell.
        native_resnet: transformers' own ResNet instead of timm's.
    """
    shapes = shapes_of(state)
    model = infer_model(shapes)
    neck, (kind, depths) = model['neck'], resnet_layout(shapes)
    classes = classes or [f'LABEL_{index}' for index in range(model['bbox_head']['num_classes'])]
    config = dict(
        architectures=['DetrForObjectDetection'],
        model_type='detr',
        auxiliary_loss=False,
        d_model=neck['embed_dims'],
        encoder_layers=neck['num_encoder_layers'],
        decoder_layers=neck['num_decoder_layers'],
        encoder_ffn_dim=neck['feedforward_channels'],
        decoder_ffn_dim=neck['feedforward_channels'],
        encoder_attention_heads=num_heads,
        decoder_attention_heads=num_heads,
        num_queries=neck['num_queries'],
        position_embedding_type='learned' if 'position_encoding' in neck else 'sine',
        id2label={str(index): name for index, name in enumerate(classes)},
        label2id={name: index for index, name in enumerate(classes)},
        use_pretrained_backbone=False,
    )
    if not native_resnet:
        return config | dict(use_timm_backbone=True, backbone=f'resnet{model["backbone"]["depth"]}')
    last_norm = 'bn3' if kind == 'bottleneck' else 'bn2'
    resnet = dict(
        model_type='resnet',
        layer_type=kind,
        depths=list(depths),
        embedding_size=shapes['backbone.conv1.weight'][0],
        hidden_sizes=[shapes[f'backbone.layer{stage}.0.{last_norm}.weight'][0] for stage in (1, 2, 3, 4)],
        out_features=['stage4'],
    )
    return config | dict(use_timm_backbone=False, backbone=None, backbone_config=resnet)


PREPROCESSOR = dict(
    image_processor_type='DetrImageProcessor',
    do_resize=True,
    size=dict(shortest_edge=800, longest_edge=1333),
    do_normalize=True,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
    do_pad=True,
    format='coco_detection',
)
