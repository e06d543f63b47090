"""Hooks, the CPU runner and the storage backend of the plugin; importing this package registers them."""

from ..checkpoints import mmengine_loading  # noqa: F401  files cannot run code
from .atomic_local_backend import AtomicLocalBackend
from .attention_visualization_hook import AttentionVisualizationHook
from .bfloat16_optim_wrapper import BFloat16OptimWrapper
from .checkpoint_fit_hook import CheckpointFitHook
from .cpu_runner import CPURunner
from .epoch_seed_hook import EpochSeedHook
from .matching_record_hook import MatchingRecordHook
from .non_finite_hook import NonFiniteHook
from .num_class_check_hook import NumClassCheckHook
from .plain_checkpoint_hook import PlainCheckpointHook
from .plain_param_groups_hook import PlainParamGroupsHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .sync_norm_stats_hook import SyncNormStatsHook

__all__ = [
    'AtomicLocalBackend',
    'AttentionVisualizationHook',
    'BFloat16OptimWrapper',
    'CPURunner',
    'CheckpointFitHook',
    'EpochSeedHook',
    'MatchingRecordHook',
    'NonFiniteHook',
    'NumClassCheckHook',
    'PlainCheckpointHook',
    'PlainParamGroupsHook',
    'SafeCheckpointHook',
    'SyncNormStatsHook',
]
