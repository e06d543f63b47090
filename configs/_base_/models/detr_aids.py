# What the configs of aided DETR share; detr-aided_r18_scratch.py says what each part does.
# scale is 16 pi: the shortest wave is an eighth of the image.
aided_neck = dict(
    reference_points='grid',
    look_near=3.0,
    position_encoding=dict(type='mmdet_detr_plugin.SinePositionEncoding', num_feats=128, temperature=20.0, scale=50.265482),
)
aided_head = dict(zero_init_boxes=True)
dense_fcos = dict(
    type='FCOSHead',
    num_classes=80,
    in_channels=256,
    stacked_convs=1,
    regress_ranges=((-1, 1e8),),
    center_sampling=True,
    norm_on_bbox=True,
    centerness_on_reg=True,
    loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
)
