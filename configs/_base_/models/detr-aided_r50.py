# Plain DETR on pretrained weights with what shortens its schedule; detr-aided_r18_scratch.py says what each part does. Rates and clipping
# are the paper's: pretrained layers move slowly whatever helps the others.
_base_ = './detr_r50.py'

model = dict(
    neck=dict(
        reference_points='grid',
        look_near=True,
        position_encoding=dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=128, temperature=20.0),
    ),
    bbox_head=dict(zero_init_boxes=True),
    training_aids=dict(
        dense=dict(
            type='mmdet_detr_plugin.DenseHeads',
            heads=dict(
                fcos=dict(
                    type='FCOSHead',
                    num_classes=80,
                    in_channels=256,
                    feat_channels=256,
                    stacked_convs=1,
                    strides=[32],
                    regress_ranges=((-1, 1e8),),
                    center_sampling=True,
                    norm_on_bbox=True,
                    centerness_on_reg=True,
                    loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
                )
            ),
        )
    ),
)
