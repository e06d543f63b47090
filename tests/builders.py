"""Small models and batches for the tests."""

import copy

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

NUM_CLASSES = 5
# with its loss written out: mmdet's writes into its own default, and can be built with that once in a process
MMDET_HEAD = dict(
    type='mmdet.DETRHead',
    loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0),
)


def detr_config(**changes) -> dict:
    """A small DETR; ``changes`` update the sub-dicts by name (``neck=dict(...)``)."""
    config = dict(
        type='mmdet_detr_plugin.DETR',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
        backbone=dict(
            type='mmdet_detr_plugin.FoldedResNet', depth=18, out_indices=(3,), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False
        ),
        neck=dict(
            type='mmdet_detr_plugin.TransformerNeck',
            in_channels=512,
            embed_dims=32,
            num_heads=4,
            num_encoder_layers=2,
            num_decoder_layers=3,
            feedforward_channels=64,
            num_queries=10,
        ),
        bbox_head=dict(type='mmdet_detr_plugin.DETRHead', num_classes=NUM_CLASSES, embed_dims=32),
    )
    for key, value in changes.items():
        config.setdefault(key, {}).update(value)
    return config


def build(config: dict, randomize_norms: bool = False) -> nn.Module:
    model = MODELS.build(copy.deepcopy(config))
    if randomize_norms:
        randomize_norm_layers(model)
    return model


def randomize_norm_layers(model: nn.Module) -> None:
    """At their initial values, several errors do not show."""
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def random_gt(
    count: int,
    img_shape: tuple[int, int],
    num_classes: int = NUM_CLASSES,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> InstanceData:
    """``count`` random objects of at least 4 pixels, inside the image."""
    height, width = img_shape
    low = torch.rand(count, 2, generator=generator, dtype=dtype) * 0.6
    size = torch.rand(count, 2, generator=generator, dtype=dtype) * 0.35 + 0.05
    scale = torch.tensor([width, height, width, height], dtype=dtype)
    return InstanceData(
        bboxes=torch.cat((low, low + size), dim=1) * scale, labels=torch.randint(num_classes, (count,), generator=generator)
    )


def make_batch(img_shapes: list[tuple[int, int]], counts: list[int], num_classes: int = NUM_CLASSES, seed: int = 0) -> dict:
    """What the data preprocessor hands to the model: zero-padded inputs and data samples."""
    generator = torch.Generator().manual_seed(seed)
    batch_shape = tuple(max(sides) for sides in zip(*img_shapes))
    inputs, samples = torch.zeros(len(img_shapes), 3, *batch_shape), []
    for index, ((height, width), count) in enumerate(zip(img_shapes, counts, strict=True)):
        inputs[index, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_path=f'{index}.jpg',
                img_shape=(height, width),
                ori_shape=(2 * height, 2 * width),
                scale_factor=(0.5, 0.5),
                batch_input_shape=batch_shape,
                pad_shape=batch_shape,
            )
        )
        sample.gt_instances = random_gt(count, (height, width), num_classes, generator)
        samples.append(sample)
    return dict(batch_inputs=inputs, batch_data_samples=samples)
