# What every config shares, whatever its model.
_base_ = 'mmdet::_base_/default_runtime.py'

# as soon as the config is read, so that no checkpoint can run code, whatever loads it
custom_imports = dict(imports=['mmdet_detr_plugin.checkpoints.mmengine_loading'])

# draws panoptic results without any segment too
visualizer = dict(type='mmdet_detr_plugin.DetLocalVisualizer')

# deterministic: the same bits in every run on the same machine; False for speed on GPUs, where operations then add in any order
randomness = dict(seed=0, deterministic=True)
default_hooks = dict(
    # every iteration of an epoch is logged, also the last few
    logger=dict(ignore_last=False),
    # written to a temporary file and renamed; old ones are deleted only afterwards
    checkpoint=dict(type='mmdet_detr_plugin.SafeCheckpointHook'),
)
custom_hooks = [
    # what is drawn depends on seed, epoch and sample (or rank) alone: both models see the same pixels, and resuming is exact
    dict(type='mmdet_detr_plugin.EpochSeedHook'),
    # NaN or infinity stops training before it reaches the weights, and is named
    dict(type='mmdet_detr_plugin.NonFiniteHook'),
    # several processes evaluate, save and resume one and the same model
    dict(type='mmdet_detr_plugin.SyncNormStatsHook'),
    # readable by torch >= 2.6 without unsafe loading: tools/test.py, --resume, init_detector, DetInferencer
    dict(type='mmdet_detr_plugin.PlainCheckpointHook'),
    # so that compile=True (torch.compile of the whole training step) runs
    dict(type='mmdet_detr_plugin.PlainParamGroupsHook'),
    # evaluation and --resume with a checkpoint of another model stop; mmengine would go on with random weights
    dict(type='mmdet_detr_plugin.CheckpointFitHook'),
    # a model's numbers of classes are those of the data; things and stuff each
    dict(type='mmdet_detr_plugin.NumClassCheckHook'),
]
