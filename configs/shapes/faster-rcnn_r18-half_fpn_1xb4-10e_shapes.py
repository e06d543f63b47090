_base_ = ['../_base_/models/faster-rcnn_r18_fpn_scratch.py', '../_base_/datasets/shapes.py', '../_base_/schedules/schedule_10e_small.py']

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(bbox_head=dict(num_classes=4)),
)
# the best of 0.001, 0.002 and 0.004 on this data
optim_wrapper = dict(optimizer=dict(lr=2e-3))
