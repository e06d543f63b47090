# 50 epochs, the usual length for DETRs that converge faster; drop for the last fifth. 500 iterations of warm-up for every model.
_base_ = './schedule_1x.py'

train_cfg = dict(max_epochs=50, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=50, by_epoch=True, milestones=[40], gamma=0.1),
]
