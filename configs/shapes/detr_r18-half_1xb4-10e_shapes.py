_base_ = ['../_base_/models/detr_r18_scratch.py', '../_base_/datasets/shapes.py', '../_base_/schedules/schedule_10e_small.py']

# half of ResNet-18's channels, for all models of the demo: it learns as well from 800 small images, in less time
model = dict(backbone=dict(base_channels=32, stem_channels=32), neck=dict(in_channels=256), bbox_head=dict(num_classes=4))
