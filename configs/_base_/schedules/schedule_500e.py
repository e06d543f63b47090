# 500 epochs as in the paper (appendix A.4): the rate drops after 400, no warm-up. The paper has the rate of 1e-4 for batches of 64, its
# code for 8 x 2; with 64 images take the rate as it is, without --auto-scale-lr.
_base_ = '../default_runtime.py'

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=500, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [dict(type='MultiStepLR', begin=0, end=500, by_epoch=True, milestones=[400], gamma=0.1)]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
# 8 GPUs x 2 images; --auto-scale-lr adapts the rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=16)
