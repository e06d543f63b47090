_base_ = ['../_base_/models/detr_r101.py', '../_base_/datasets/coco_detr.py', '../_base_/schedules/schedule_500e.py']
