_base_ = ['../_base_/models/faster-rcnn_r18_fpn.py', '../_base_/datasets/coco_detr.py', '../_base_/schedules/schedule_50e.py']
