# COCO under DETR's augmentation (reference: datasets/coco.py), for DETR and Faster R-CNN alike.
# Images without objects are kept, as the official DETR does (mmdet's COCO base drops them): they are what "no object" looks like, and
# both models can learn from them.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

dataset_type = 'mmdet_detr_plugin.StrictCocoDataset'
scales = [(side, 1333) for side in range(480, 801, 32)]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                # the longer side is not limited before the crop
                dict(type='RandomChoiceResize', scales=[(400, 4200), (500, 4200), (600, 4200)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
                dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(type=dataset_type, filter_cfg=None, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = dict(dataset=dict(type=dataset_type))
# results are gathered through the processes' own connection; mmengine's default needs a folder that all machines share
val_evaluator = dict(collect_device='gpu')
test_evaluator = val_evaluator
