"""The configuration files that HF transformers wants beside the weights."""

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from ..config_files import dataset_chains, kind
from .architecture import infer_model, resnet_layout, shapes_of

PAPERS_SIZE = dict(shortest_edge=800, longest_edge=1333)


def classes_of(folder: Path) -> tuple[str, ...] | None:
    """Class names in row order, from the ``config.json`` of a folder; None when there is none.

    Raises:
        ValueError: when the file is no JSON object, or its ``id2label`` no numbers with names.
    """
    path = folder / 'config.json'
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_bytes()).get('id2label') or {}
        names = tuple(labels[key] for key in sorted(labels, key=int))
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f'{path} is no config.json of HF transformers ({type(error).__name__}: {error!s:.200})') from error
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f'id2label in {path} must give each number a name, got {reprlib.repr(labels)}')
    return names or None


def detr_config(state: dict[str, Tensor], classes: Sequence[str] | None, num_heads: int, native_resnet: bool) -> dict:
    """``config.json`` of a ``DetrForObjectDetection``, or with a mask head of a ``DetrForSegmentation``.

    Args:
        state: weights under the plugin's names.
        classes: names of the classes; numbered ones where they are not known.
        num_heads: attention heads, which a detector's weights do not tell; those of the mask head are the same.
        native_resnet: transformers' own ResNet instead of timm's.
    """
    shapes = shapes_of(state)
    model = infer_model(shapes)
    neck, (kind, depths) = model['neck'], resnet_layout(shapes)
    is_panoptic = 'mask_head' in model
    classes = classes or [f'LABEL_{index}' for index in range(model['bbox_head']['num_classes'])]
    config = dict(
        architectures=['DetrForSegmentation' if is_panoptic else 'DetrForObjectDetection'],
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
        out_features=[f'stage{stage}' for stage in ((1, 2, 3, 4) if is_panoptic else (4,))],
    )
    return config | dict(use_timm_backbone=False, backbone=None, backbone_config=resnet)


def preprocessor_config(cfg: Config | None, is_panoptic: bool = False) -> dict:
    """``preprocessor_config.json``: how test images are resized and normalised; the paper's way without a config.

    Raises:
        ValueError: when the config feeds BGR, or resizes in a way that ``DetrImageProcessor`` cannot.
    """
    size, mean, std = PAPERS_SIZE, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    if cfg is not None:
        preprocessor = cfg.model.data_preprocessor
        if not preprocessor.get('bgr_to_rgb', False):
            raise ValueError(
                "the config feeds images as BGR; HF's DetrImageProcessor has RGB only; name a .safetensors file to write weights alone"
            )
        mean, std = preprocessor.mean, preprocessor.std
        size = _test_size(cfg) if cfg.get('test_dataloader') else size
    return dict(
        image_processor_type='DetrImageProcessor',
        do_resize=size is not None,
        size=size or PAPERS_SIZE,  # which it must have, and does not use then
        do_normalize=True,
        image_mean=[value / 255 for value in mean],
        image_std=[value / 255 for value in std],
        do_pad=True,
        format='coco_panoptic' if is_panoptic else 'coco_detection',
    )


def _test_size(cfg: Config) -> dict | None:
    """What test images are resized to; None where they stay as they are."""
    steps = [step for dataset in reversed(dataset_chains(cfg.test_dataloader)[0]) for step in dataset.get('pipeline') or []]
    resizing = [step for step in steps if 'Resize' in kind(step)]
    if not resizing or (len(resizing) == 1 and resizing[0].get('scale_factor') in (1, 1.0)):
        return None
    if len(resizing) > 1 or kind(resizing[0]) not in ('Resize', 'FixScaleResize') or not resizing[0].get('scale'):
        raise ValueError(
            f"the test pipeline resizes by {[dict(step) for step in resizing]}; HF's DetrImageProcessor only resizes once, to one scale. "
            'Evaluate with Resize(scale=...), or name a .safetensors file to write weights alone'
        )
    scale = resizing[0]['scale']
    width, height = (scale, scale) if isinstance(scale, int) else scale
    if resizing[0].get('keep_ratio', False):
        return dict(shortest_edge=min(width, height), longest_edge=max(width, height))
    return dict(height=height, width=width)
