# All at once, on the schedule of ../panoptic_fpn/panoptic-fpn_r50_fpn_8xb2-1x_coco-panoptic.py.
_base_ = [
    '../_base_/models/panoptic-detr_r50.py',
    '../_base_/datasets/coco_panoptic_detr.py',
    '../_base_/schedules/schedule_1x.py',
]
