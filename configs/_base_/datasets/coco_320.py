# COCO-format data at 320 x 240 with flips and crops: for small data sets and weak machines, for DETR and Faster R-CNN alike.
# Images without objects are kept. Point it at your own data with tools/make_config.py.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

dataset_type = 'mmdet_detr_plugin.StrictCocoDataset'
scales = [(side, side * 4 // 3) for side in (192, 208, 224, 240, 256)]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                dict(type='RandomChoiceResize', scales=[(240, 1280), (280, 1280), (320, 1280)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(160, 280), allow_negative_crop=True),
                dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(type=dataset_type, filter_cfg=None, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(type=dataset_type, pipeline=test_pipeline))
# results are gathered through the processes' own connection; mmengine's default needs a folder that all machines share
val_evaluator = dict(collect_device='gpu')
test_evaluator = val_evaluator
