_base_ = [
    '../_base_/models/panoptic-fpn_r18_fpn_scratch.py',
    '../_base_/datasets/shapes_panoptic.py',
    '../_base_/schedules/schedule_10e_small.py',
]

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(bbox_head=dict(num_classes=4), mask_head=dict(num_classes=4)),
    semantic_head=dict(num_things_classes=4, num_stuff_classes=3),
    panoptic_fusion_head=dict(num_things_classes=4, num_stuff_classes=3),
)
# that of Faster R-CNN on this data; others have not been tried
optim_wrapper = dict(optimizer=dict(lr=2e-3))
