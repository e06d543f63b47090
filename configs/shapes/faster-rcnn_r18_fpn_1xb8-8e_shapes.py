_base_ = ['../_base_/models/faster-rcnn_r18_fpn_scratch.py', '../_base_/datasets/shapes.py', '../_base_/schedules/schedule_8e_small.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=4)))
