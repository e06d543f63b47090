_base_ = './detr_r101.py'

model = dict(backbone=dict(type='mmdet_detr_plugin.ResNetDC5'))
