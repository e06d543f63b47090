# The paper's "+" baseline: boxes are regressed with GIoU loss (table 1).
_base_ = './faster-rcnn_r101_fpn.py'

model = dict(roi_head=dict(bbox_head=dict(reg_decoded_bbox=True, loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=10.0))))
