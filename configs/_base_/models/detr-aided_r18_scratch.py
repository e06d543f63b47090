# Plain DETR from scratch with what lets it learn from little data. At inference the network is DETR's, but for one point for each query.
# - queries start at the points of a grid, their boxes from these points, their attention near these points
# - positions in short waves, from an eighth of the image (scale = 16 pi) to two and a half of it (temperature): the paper's shortest wave
#   is the whole image, so that cells beside each other differ by less than one hundredth of the encoding
# - a dense head on the memory, in training only: every object teaches backbone and encoder at several places from the first iteration on
_base_ = ['./detr_r18_scratch.py', './detr_aids.py']

dense = dict(feat_channels=128, strides=[16], norm_cfg=dict(type='BN'), **_base_.dense_fcos)
model = dict(
    neck=_base_.aided_neck,
    bbox_head=_base_.aided_head,
    training_aids=dict(dense=dict(type='mmdet_detr_plugin.DenseHeads', heads=dict(fcos=dense))),
)

# The paper's rate: at 5e-4 the post-norm encoder collapses within five epochs to one vector for all cells, and nothing is learned from it.
# It is the same for batches of two and of four; whether four bear more has not been tried.
# Gradients have norms of some hundreds; clipping only evens out single steps, since AdamW divides by their size.
optim_wrapper = dict(optimizer=dict(lr=1e-4), clip_grad=dict(max_norm=1.0))
