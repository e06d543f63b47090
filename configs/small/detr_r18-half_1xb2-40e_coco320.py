_base_ = ['../_base_/models/detr_r18_scratch.py', '../_base_/datasets/coco_320.py', '../_base_/schedules/schedule_40e_small.py']

# half of ResNet-18's channels, for all models: on a few hundred images it learns as well, in less time
model = dict(backbone=dict(base_channels=32, stem_channels=32), neck=dict(in_channels=256))
