_base_ = ['../_base_/models/local-detr_r18_scratch.py', '../_base_/datasets/coco_320.py', '../_base_/schedules/schedule_10e_small.py']
