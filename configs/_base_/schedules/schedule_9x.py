# 109 epochs: the paper's long schedule for Faster R-CNN ("9x"); the rate drops for the last 60k and 20k of about 810k iterations. The 500
# iterations of warm-up are for every model of a comparison: Faster R-CNN needs them, and they change DETR (which the paper trains without)
# by nothing to speak of.
_base_ = '../default_runtime.py'

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=109, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=109, by_epoch=True, milestones=[101, 106], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
# 8 GPUs x 2 images; --auto-scale-lr adapts the rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=16)
