# 40 epochs for small data on one process: 100 iterations of warm-up and a drop for the last eight epochs, for every model of a comparison.
_base_ = './schedule_12e_small.py'

train_cfg = dict(max_epochs=40, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=40, by_epoch=True, milestones=[32], gamma=0.1),
]
