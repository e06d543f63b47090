_base_ = ['../_base_/models/faster-rcnn-plus_r101-dc5.py', '../_base_/datasets/coco_detr.py', '../_base_/schedules/schedule_9x.py']
