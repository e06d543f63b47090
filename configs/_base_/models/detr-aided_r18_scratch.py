# Plain DETR from scratch with what lets it learn from little data. At inference the network is DETR's, but for one point for each query.
# - queries start at the points of a grid, their boxes from these points, their attention near these points
# - positions with a short temperature: neighbouring cells differ more, so that "near" is learned soon
# - a dense head on the memory, in training only: every object teaches backbone and encoder at several places from the first iteration on
_base_ = './detr_r18_scratch.py'

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
                    feat_channels=128,
                    stacked_convs=1,
                    strides=[16],
                    regress_ranges=((-1, 1e8),),
                    center_sampling=True,
                    norm_on_bbox=True,
                    centerness_on_reg=True,
                    norm_cfg=dict(type='BN'),
                    loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
                )
            ),
        )
    ),
)

# a higher rate than the paper's, for small networks from scratch; the paper's clipping at 0.1 would take most of it back
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=1.0))
