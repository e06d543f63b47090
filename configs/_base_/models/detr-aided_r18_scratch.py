# Plain DETR from scratch with what lets it learn from little data. At inference the network is DETR's, but for one point for each query.
# - queries start at the points of a grid, their boxes from these points, their attention near these points
# - positions with a short temperature: neighbouring cells differ more, so that "near" is learned soon
# - a dense head on the memory, in training only: every object teaches backbone and encoder at several places from the first iteration on
_base_ = ['./detr_r18_scratch.py', './detr_aids.py']

dense = dict(feat_channels=128, strides=[16], norm_cfg=dict(type='BN'), **_base_.dense_fcos)
model = dict(
    neck=_base_.aided_neck,
    bbox_head=_base_.aided_head,
    training_aids=dict(dense=dict(type='mmdet_detr_plugin.DenseHeads', heads=dict(fcos=dense))),
)

# a higher rate than the paper's, for small networks from scratch; the paper's clipping at 0.1 would take most of it back
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=1.0))
