# The paper's Faster R-CNN-DC5+: a dilated last stage instead of the pyramid, boxes and proposals with GIoU loss alone (weights 20 and 1,
# appendix A.4). mmdet's DC5 base brings caffe's backbone and pixel statistics; here the backbone, its weights and the pre-processing are
# those of DETR-DC5.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50-caffe-dc5.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='mmdet_detr_plugin.ResNetDC5',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='mmdet_detr_plugin.PretrainedBackbone', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    rpn_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=1.0)),
    roi_head=dict(bbox_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=20.0))),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
