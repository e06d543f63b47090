_base_ = [
    '../_base_/models/panoptic-fpn_r18_fpn_scratch.py',
    '../_base_/datasets/coco_320_panoptic.py',
    '../_base_/schedules/schedule_40e_small.py',
]

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    # pixels of the original image, as for COCO
    test_cfg=dict(panoptic=dict(stuff_area_limit=4096)),
)
# for batches of two images
optim_wrapper = dict(optimizer=dict(lr=5e-4))
