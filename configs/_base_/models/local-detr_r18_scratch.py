# LocalDETR for small images, trained from scratch: the backbone of faster-rcnn_r18_fpn_scratch.py.
# Residual branches start open (zero_init_residual=False): scales that start at zero need more steps to open than a short schedule has.
model = dict(
    type='mmdet_detr_plugin.LocalDETR',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32
    ),
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        zero_init_residual=False,
        style='pytorch',
        init_cfg=None,
    ),
    neck=dict(type='mmdet_detr_plugin.PyramidEncoder', in_channels=[64, 128, 256, 512], embed_dims=128, feedforward_channels=512),
    bbox_head=dict(
        type='mmdet_detr_plugin.LocalDETRHead',
        num_classes=80,
        embed_dims=128,
        feedforward_channels=512,
        num_queries=50,
        num_points=7,
        value_dims=32,
        jitter=dict(type='mmdet_detr_plugin.JitteredBoxes', copies=4),
    ),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
    clip_grad=dict(max_norm=10, norm_type=2),
)
