_base_ = ['../_base_/models/detr-aided_r18.py', '../_base_/datasets/coco_detr.py', '../_base_/schedules/schedule_1x.py']
