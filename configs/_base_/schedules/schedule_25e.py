# 25 epochs for a mask head on a trained detector, as in the official code: the rate drops after 15, no warm-up.
_base_ = './schedule_500e.py'

train_cfg = dict(max_epochs=25, val_interval=5)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=25, by_epoch=True, milestones=[15], gamma=0.1)]
