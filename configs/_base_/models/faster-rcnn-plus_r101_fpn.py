# The paper's "+" baseline: boxes and proposals are regressed with GIoU loss alone, of weights 20 and 1 (appendix A.4).
_base_ = './faster-rcnn_r101_fpn.py'

model = dict(
    rpn_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=1.0)),
    roi_head=dict(bbox_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=20.0))),
)
