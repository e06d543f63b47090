# 12 epochs for small data on one process: 100 iterations of warm-up and a drop for the last two epochs, for every model of a comparison.
_base_ = './schedule_10e_small.py'

train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[10], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=2)
