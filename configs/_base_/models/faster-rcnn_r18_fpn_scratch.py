# Faster R-CNN for small images, trained from scratch: normalisation that learns, anchors from 16 pixels on, a head cut to what small
# images need (fewer regions, narrower layers). Gradients are clipped as LocalDETR's, which evens out single steps. Batch norm in the FPN
# as in LocalDETR's neck, and its optimiser: from scratch AdamW learns several times faster than SGD at its best rate (tools/ablate.py
# baseline).
# Residual branches start open (zero_init_residual=False): scales that start at zero need more steps to open than a short schedule has.
_base_ = './faster-rcnn_r18_fpn.py'

model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, zero_init_residual=False, init_cfg=None),
    neck=dict(out_channels=128, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=128, feat_channels=128, anchor_generator=dict(scales=[4])),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=128), bbox_head=dict(in_channels=128, fc_out_channels=512)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2),
)
