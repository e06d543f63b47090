# Panoptic LocalDETR for small images, trained from scratch: local-detr_r18_scratch.py with a mask for each query, from its box and the
# memory's levels at strides 4, 8 and 16.
_base_ = './local-detr_r18_scratch.py'

model = dict(
    type='mmdet_detr_plugin.PanopticLocalDETR',
    data_preprocessor=dict(pad_mask=True, mask_pad_value=0, pad_seg=True, seg_pad_value=255),
    bbox_head=dict(num_classes=133),
    mask_head=dict(type='mmdet_detr_plugin.BoxMaskHead', in_channels=(128, 128, 128), embed_dims=128, num_products=8),
    stuff_head=dict(type='mmdet_detr_plugin.StuffHead', embed_dims=128),
    num_things_classes=80,
    num_stuff_classes=53,
    test_cfg=dict(panoptic_on=True, instance_on=True, score_thr=0.4),
)
