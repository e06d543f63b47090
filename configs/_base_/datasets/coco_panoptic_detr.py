# COCO panoptic under DETR's augmentation (coco_detr.py), for DETR and Panoptic FPN alike. Images without things are kept.
_base_ = 'mmdet::_base_/datasets/coco_panoptic.py'

dataset_type = 'mmdet_detr_plugin.StrictCocoPanopticDataset'
data_root = 'data/coco/'
scales = [(side, 1333) for side in range(480, 801, 32)]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='mmdet_detr_plugin.LoadPanopticAnnotations', backend_args=None),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                # the longer side is not limited before the crop
                dict(type='RandomChoiceResize', scales=[(400, 4200), (500, 4200), (600, 4200)], keep_ratio=True),
                # boxes of what is left of the masks, as those of stuff are; a box cut at the crop's border is larger
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True, recompute_bbox=True),
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
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    # the metrics read the annotation files themselves
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(type=dataset_type, filter_cfg=None, pipeline=train_pipeline))
# one image at a time: group norm in the heads takes its statistics over the padding of a batch, too
val_dataloader = dict(batch_size=1, dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader
# results are gathered through the processes' own connection; mmengine's default needs a folder that all machines share
val_evaluator = [
    dict(
        type='mmdet_detr_plugin.CocoPanopticMetric',
        ann_file=data_root + 'annotations/panoptic_val2017.json',
        seg_prefix=data_root + 'annotations/panoptic_val2017/',
        collect_device='gpu',
    ),
    dict(type='CocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', metric=['bbox', 'segm'], collect_device='gpu'),
]
test_evaluator = val_evaluator
