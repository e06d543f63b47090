# What every config shares, whatever its model.
_base_ = 'mmdet::_base_/default_runtime.py'

randomness = dict(seed=0)
# every iteration of an epoch is logged, also the last few
default_hooks = dict(logger=dict(ignore_last=False))
custom_hooks = [
    # readable by torch >= 2.6 without unsafe loading: tools/test.py, --resume, init_detector, DetInferencer
    dict(type='mmdet_detr_plugin.PlainCheckpointHook'),
    dict(type='NumClassCheckHook'),
]
