# The generated shapes data set (tools/make_shapes.py), 128 x 128, with masks, and the textures of its background as stuff. Images without
# objects are kept.
dataset_type = 'mmdet_detr_plugin.StrictCocoPanopticDataset'
data_root = 'data/shapes/'
metainfo = dict(
    classes=('circle', 'square', 'triangle', 'star', 'noise', 'stripes', 'gradient'),
    palette=[(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (127, 127, 127)],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet_detr_plugin.LoadPanopticAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # the metrics read the annotation files themselves
    dict(type='LoadAnnotations', with_bbox=True),
    # no resizing here, so the scale that predictions are divided by is stated
    dict(type='Resize', scale_factor=1.0, keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='train/', seg='annotations/panoptic_train/'),
        filter_cfg=None,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/panoptic_test.json',
        data_prefix=dict(img='test/', seg='annotations/panoptic_test/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# results are gathered through the processes' own connection; mmengine's default needs a folder that all machines share
val_evaluator = [
    dict(
        type='mmdet_detr_plugin.CocoPanopticMetric',
        ann_file=data_root + 'annotations/panoptic_test.json',
        seg_prefix=data_root + 'annotations/panoptic_test/',
        collect_device='gpu',
    ),
    dict(type='CocoMetric', ann_file=data_root + 'annotations/test.json', metric=['bbox', 'segm'], collect_device='gpu'),
]
test_evaluator = val_evaluator
