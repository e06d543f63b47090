"""Child registries of mmengine's roots in the scope ``mmdet_detr_plugin``.

The scope equals the importable package, so ``type='mmdet_detr_plugin.DETRHead'`` resolves in any config without ``custom_imports``. The
parent is mmengine's root and not mmdet's registry: with an mmdet parent, a class that failed to register would silently fall through to
mmdet's class of the same name. Keep this file light: mmengine swallows ImportErrors raised while it imports ``X.registry``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = 'mmdet_detr_plugin'


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[f'{SCOPE}.{location}' for location in locations])


MODELS = _child(MMENGINE_MODELS, 'models')
TASK_UTILS = _child(MMENGINE_TASK_UTILS, 'models')
WEIGHT_INITIALIZERS = _child(MMENGINE_WEIGHT_INITIALIZERS, 'models')
DATASETS = _child(MMENGINE_DATASETS, 'datasets.strict_coco', 'datasets.panoptic.strict_coco_panoptic', 'datasets.sample_randomness')
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'datasets.panoptic.loading')
METRICS = _child(MMENGINE_METRICS, 'evaluation')
HOOKS = _child(MMENGINE_HOOKS, 'engine')
VISUALIZERS = _child(MMENGINE_VISUALIZERS, 'visualization.visualizer')
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS, 'engine')
RUNNERS = _child(MMENGINE_RUNNERS, 'engine')
