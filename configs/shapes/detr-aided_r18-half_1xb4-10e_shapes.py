_base_ = ['../_base_/models/detr-aided_r18_scratch.py', '../_base_/datasets/shapes.py', '../_base_/schedules/schedule_10e_small.py']

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=256),
    bbox_head=dict(num_classes=4),
    training_aids=dict(dense=dict(heads=dict(fcos=dict(num_classes=4)))),
)
