# The paper's DETR with its optimiser (sections 3 and 4, appendix A.4).
model = dict(
    type='mmdet_detr_plugin.DETR',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=1
    ),
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='mmdet_detr_plugin.PretrainedBackbone', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(
        type='mmdet_detr_plugin.TransformerNeck',
        in_channels=2048,
        embed_dims=256,
        num_heads=8,
        num_encoder_layers=6,
        num_decoder_layers=6,
        feedforward_channels=2048,
        dropout=0.1,
        num_queries=100,
        pre_norm=False,
        position_encoding=dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=128),
    ),
    bbox_head=dict(
        type='mmdet_detr_plugin.DETRHead',
        num_classes=80,
        embed_dims=256,
        aux_loss=True,
        loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='mmdet_detr_plugin.HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=100),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=1.0)}),
)
