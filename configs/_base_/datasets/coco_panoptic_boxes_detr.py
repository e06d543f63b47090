# COCO panoptic for a model that finds boxes of things and stuff, without masks: only the boxes of things have an evaluation.
_base_ = './coco_panoptic_detr.py'

val_evaluator = [
    dict(type='CocoMetric', ann_file=_base_.data_root + 'annotations/instances_val2017.json', metric='bbox', collect_device='gpu'),
]
test_evaluator = val_evaluator
