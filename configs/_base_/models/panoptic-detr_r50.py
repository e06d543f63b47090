# The paper's panoptic DETR (section 4.4): boxes for things and stuff, and a mask head on the detector of detr_r50.py. As it stands here all
# of it is trained together; panoptic-detr-boxes_* and panoptic-detr-masks_* are the paper's two stages.
_base_ = './detr_r50.py'

model = dict(
    type='mmdet_detr_plugin.PanopticDETR',
    data_preprocessor=dict(pad_mask=True, mask_pad_value=0, pad_seg=True, seg_pad_value=255),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    bbox_head=dict(num_classes=133),
    mask_head=dict(
        type='mmdet_detr_plugin.DETRMaskHead',
        in_channels=(256, 512, 1024),
        embed_dims=256,
        num_heads=8,
        loss_mask=dict(type='FocalLoss', alpha=0.25, gamma=2.0, loss_weight=1.0),
        loss_dice=dict(type='DiceLoss', loss_weight=1.0),
    ),
    num_things_classes=80,
    num_stuff_classes=53,
    # a segment's query must be sure by 0.85, as in the official code
    test_cfg=dict(max_per_img=100, panoptic_on=True, instance_on=True, score_thr=0.85),
)
