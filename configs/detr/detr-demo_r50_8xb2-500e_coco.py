# padding is not masked: evaluate at batch size 1, which the data base has
_base_ = ['../_base_/models/detr-demo_r50.py', '../_base_/datasets/coco_detr.py', '../_base_/schedules/schedule_500e.py']
