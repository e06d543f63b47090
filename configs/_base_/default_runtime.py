# What every config shares, whatever its model.
_base_ = 'mmdet::_base_/default_runtime.py'

randomness = dict(seed=0)
custom_hooks = [
    # readable by torch >= 2.6 without unsafe loading: tools/test.py, --resume, init_detector, DetInferencer
    dict(type='mmdet_detr_plugin.PlainCheckpointHook'),
    dict(type='NumClassCheckHook'),
]
