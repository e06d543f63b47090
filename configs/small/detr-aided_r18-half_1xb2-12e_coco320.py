_base_ = ['../_base_/models/detr-aided_r18_scratch.py', '../_base_/datasets/coco_320.py', '../_base_/schedules/schedule_12e_small.py']

model = dict(backbone=dict(base_channels=32, stem_channels=32), neck=dict(in_channels=256))
