_base_ = [
    '../_base_/models/panoptic-local-detr_r18_scratch.py',
    '../_base_/datasets/shapes_panoptic.py',
    '../_base_/schedules/schedule_10e_small.py',
]

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(num_classes=7),
    num_things_classes=4,
    num_stuff_classes=3,
)
