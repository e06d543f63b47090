# mmdet's Panoptic FPN (mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py) with its usual optimiser. Of mmdet's differ the address of the
# backbone's weights, that the backbone runs faster (it is DETR's, so that speeds compare), and that instances of all scores are among the
# results, for their AP: score_thr of the panoptic map stands in test_cfg.panoptic.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    type='mmdet_detr_plugin.PanopticFPN',
    data_preprocessor=dict(mask_pad_value=0, pad_seg=True, seg_pad_value=255),
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        init_cfg=dict(
            _delete_=True,
            type='mmdet_detr_plugin.PretrainedBackbone',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    ),
    semantic_head=dict(
        type='PanopticFPNHead',
        num_things_classes=80,
        num_stuff_classes=53,
        in_channels=256,
        inner_channels=128,
        start_level=0,
        end_level=4,
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
        conv_cfg=None,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5),
    ),
    panoptic_fusion_head=dict(type='HeuristicFusionHead', num_things_classes=80, num_stuff_classes=53),
    test_cfg=dict(
        rcnn=dict(nms=dict(class_agnostic=True)),
        panoptic=dict(score_thr=0.6, mask_overlap=0.5, stuff_area_limit=4096),
    ),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
