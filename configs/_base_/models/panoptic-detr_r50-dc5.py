_base_ = './panoptic-detr_r50.py'

model = dict(backbone=dict(type='mmdet_detr_plugin.ResNetDC5'))
