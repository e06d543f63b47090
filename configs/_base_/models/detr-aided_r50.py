# Plain DETR on pretrained weights with what shortens its schedule; detr-aided_r18_scratch.py says what each part does. Rates and clipping
# are the paper's: pretrained layers move slowly whatever helps the others.
_base_ = ['./detr_r50.py', './detr_aids.py']

dense = dict(feat_channels=256, strides=[32], **_base_.dense_fcos)
model = dict(
    neck=_base_.aided_neck,
    bbox_head=_base_.aided_head,
    training_aids=dict(dense=dict(type='mmdet_detr_plugin.DenseHeads', heads=dict(fcos=dense))),
)
