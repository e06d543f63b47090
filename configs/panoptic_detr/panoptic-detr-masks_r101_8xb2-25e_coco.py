# Second stage: the mask head alone, on the detector of the first stage, or on converted official weights (--cfg-options load_from=FILE).
_base_ = [
    '../_base_/models/panoptic-detr_r101.py',
    '../_base_/datasets/coco_panoptic_detr.py',
    '../_base_/schedules/schedule_25e.py',
]

model = dict(freeze_detector=True)
load_from = 'work_dirs/panoptic-detr-boxes_r101_8xb2-500e_coco/epoch_500.pth'
