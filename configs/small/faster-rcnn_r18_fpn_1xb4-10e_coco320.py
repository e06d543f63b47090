_base_ = ['../_base_/models/faster-rcnn_r18_fpn_scratch.py', '../_base_/datasets/coco_320.py', '../_base_/schedules/schedule_10e_small.py']
