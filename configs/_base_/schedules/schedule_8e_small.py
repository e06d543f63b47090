# 8 epochs for small data on one process: 200 iterations of warm-up and a drop for the last quarter, for every model of a comparison.
_base_ = '../default_runtime.py'

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=8)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='MultiStepLR', begin=0, end=8, by_epoch=True, milestones=[6], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2), logger=dict(interval=20))
auto_scale_lr = dict(enable=False, base_batch_size=8)
