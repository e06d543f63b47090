# First stage: boxes of things and stuff.
_base_ = [
    '../_base_/models/panoptic-detr_r50-dc5.py',
    '../_base_/datasets/coco_panoptic_boxes_detr.py',
    '../_base_/schedules/schedule_500e.py',
]

model = dict(mask_head=None)
