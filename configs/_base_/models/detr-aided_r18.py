_base_ = './detr-aided_r50.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(in_channels=512),
)
