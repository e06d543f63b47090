"""COCO's panoptic format. Kept empty, so that generating data needs neither torch nor mmdet."""
