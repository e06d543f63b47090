"""A config's model with a checkpoint's weights, or a clear refusal."""

import copy
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from ..checkpoints import mmengine_loading  # noqa: F401  files cannot run code
from ..checkpoints.conversion import TRAINING_AIDS
from ..checkpoints.reading import check_readable, classes_in
from ..config_files import dataset_chains


def load_model(cfg: Config, checkpoint: Path | None, device: str) -> nn.Module:
    """The model in evaluation mode, without training aids; with random weights where there is no checkpoint.

    Config and checkpoint may have training aids or not, as for ``CheckpointFitHook``: nothing here uses them.
    ``dataset_meta`` of the model holds the classes that the checkpoint names, or else the config.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        ValueError: when it is no checkpoint, carries code or is not this model's, the model cannot be built, or the device not be used.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.pop('training_aids', None)
    backbone = model_cfg.get('backbone')
    if isinstance(backbone, dict) and backbone.get('init_cfg') is not None:
        backbone.init_cfg = None  # the checkpoint holds all weights
    if cfg.get('data_preprocessor'):  # as mmengine's runner does
        model_cfg.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    try:
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(f'the model of {cfg.filename} cannot be built ({type(error).__name__}: {error}); correct the config') from error
    meta = {}
    if checkpoint is not None:
        check_readable(Path(checkpoint))
        try:
            hook = model.register_load_state_dict_pre_hook(_leave_out_training_aids)
            content = load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
            hook.remove()
        except (RuntimeError, TypeError, AttributeError, KeyError) as error:  # also entries that are no tensors
            raise ValueError(
                f'{checkpoint} does not fit the model of {cfg.filename}; expected one that was trained with it. {error}'
            ) from error
        if classes := classes_in(content, Path(checkpoint)):
            stored = content['meta'].get('dataset_meta')
            meta = {**(stored if isinstance(stored, dict) else {}), 'classes': classes}
    stated = dataset_chains(cfg.get('test_dataloader') or {})[0][-1].get('metainfo') or {}
    model.dataset_meta = {**stated, **{key.lower(): value for key, value in meta.items() if value is not None}}
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch's for names it does not know, and for what it was built without
        raise ValueError(f'the device {device!r} cannot be used here ({str(error).splitlines()[0]}); cpu always can') from error


def _leave_out_training_aids(model: nn.Module, state: dict, *_) -> None:
    for name in [name for name in state if name.startswith(TRAINING_AIDS)]:
        del state[name]
