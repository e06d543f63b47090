# LocalDETR on pretrained weights, at COCO's size. Group norm where batches of two images are too small for batch norm.
norm_cfg = dict(type='GN', num_groups=32)

model = dict(
    type='mmdet_detr_plugin.LocalDETR',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32
    ),
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='mmdet_detr_plugin.PretrainedBackbone', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(type='mmdet_detr_plugin.PyramidEncoder', in_channels=[256, 512, 1024, 2048], embed_dims=256, norm_cfg=norm_cfg),
    bbox_head=dict(
        type='mmdet_detr_plugin.LocalDETRHead',
        num_classes=80,
        embed_dims=256,
        num_queries=100,
        num_dense_convs=2,
        norm_cfg=norm_cfg,
        jitter=dict(type='mmdet_detr_plugin.JitteredBoxes', copies=2),
    ),
    test_cfg=dict(max_per_img=100),
)

# the rate of DETRs with selected queries; pretrained layers move by a tenth of it
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
