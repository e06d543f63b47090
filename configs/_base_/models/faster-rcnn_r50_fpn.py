# mmdet's Faster R-CNN with its usual optimiser. Of mmdet's base differ the address of the backbone's weights, and that the backbone runs
# faster: it is DETR's, so that speeds compare.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        type='mmdet_detr_plugin.FoldedResNet',
        init_cfg=dict(
            _delete_=True,
            type='mmdet_detr_plugin.PretrainedBackbone',
            checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth',
        ),
    )
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
