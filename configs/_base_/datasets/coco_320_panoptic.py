# COCO panoptic data at 320 x 240 with flips and crops (coco_320.py with segments): for small data sets and weak machines, for panoptic
# DETRs and Panoptic FPN alike. Images without things are kept. Point it at your own data with tools/make_config.py.
_base_ = './coco_panoptic_detr.py'

scales = [(side, side * 4 // 3) for side in (192, 208, 224, 240, 256)]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='mmdet_detr_plugin.LoadPanopticAnnotations', backend_args=None),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                dict(type='RandomChoiceResize', scales=[(240, 1280), (280, 1280), (320, 1280)], keep_ratio=True),
                # boxes of what is left of the masks, as those of stuff are
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(160, 280), allow_negative_crop=True, recompute_bbox=True),
                dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
            ],
        ],
    ),
    # things of which the crop or the smaller size has left no pixel
    dict(type='FilterAnnotations', by_box=False, by_mask=True, min_gt_mask_area=1, keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    # the metrics read the annotation files themselves
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
