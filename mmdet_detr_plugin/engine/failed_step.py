"""A training step as a file: everything that it started from, in plain values, and the way back.

To look into a file that ``NonFiniteHook`` has written::

    from mmdet_detr_plugin.engine.failed_step import load_step, replay
    print(replay('work_dirs/run/non_finite_epoch_3_iter_120.pth'))  # repeats the step, names the first tensor that is not finite

``model, batch, optim_wrapper = load_step(path)`` is for a debugger; ``model.train_step(batch, optim_wrapper)`` repeats the step.
"""

import io
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn

from ..files import write_atomically
from ..random_state import set_generators_state
from .first_non_finite import find_first

KIND = '__kind__'  # marks what a dict stands for
ELEMENTS = {kind.__name__: kind for kind in (DetDataSample, InstanceData, PixelData, BaseDataElement)}
MASKS = {kind.__name__: kind for kind in (BitmapMasks, PolygonMasks)}


def save_step(path: Path, content: dict) -> None:
    """Write a step atomically.

    Args:
        content: ``epoch`` and ``iter``, both from 1, ``rank``, ``first`` (the tensor), ``message``, ``images`` (id and path each),
            ``state_dict``, ``optimizer``, ``batch`` (as the data loader gave it), ``losses``, ``generators`` and ``config`` (its text).
    """
    buffer = io.BytesIO()
    torch.save({key: value if key in ('state_dict', 'optimizer') else encode(value) for key, value in content.items()}, buffer)
    write_atomically(buffer.getvalue(), path)


def load_step(path: Path | str, model: nn.Module | None = None) -> tuple[nn.Module, object, OptimWrapper]:
    """What the step started from; the global random generators are set to what they were.

    Args:
        path: a file of ``save_step``.
        model: for a run without a config file; by default built from the saved config.

    Returns:
        The model in training mode with the weights of that time, on the GPU where there is one; the batch; the optimiser with its state.

    Raises:
        ValueError: without ``model``, when the file has no model config.
    """
    step = torch.load(path, map_location='cpu', weights_only=True)
    cfg = Config.fromstring(step['config'], '.py') if step['config'] else Config()
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    if model is None:
        if 'model' not in cfg:
            raise ValueError(f'{path} holds no model config, because the run had none; build the model and pass it as model=')
        model = MODELS.build(cfg.model)
    model.load_state_dict(step['state_dict'])
    model.to('cuda' if torch.cuda.is_available() else 'cpu').train()
    wrapper = build_optim_wrapper(model, cfg.get('optim_wrapper') or dict(optimizer=dict(type='SGD', lr=0.0)))
    if 'optim_wrapper' in cfg:
        wrapper.load_state_dict(step['optimizer'])
    set_generators_state(decode(step['generators']))
    return model, decode(step['batch']), wrapper


def replay(path: Path | str, model: nn.Module | None = None) -> str | None:
    """Repeat a saved step without an update and name the first tensor that is not finite; None where all are. Arguments: ``load_step``."""
    model, batch, wrapper = load_step(path, model)
    return find_first(model, batch, wrapper)[0]


def encode(value):
    """Tensors and plain Python values for a data loader's batch or generators' states; what is unknown becomes its description."""
    if isinstance(value, (torch.Tensor, str, bytes, int, float, bool, type(None))) and not isinstance(value, np.generic):
        return value.detach().cpu() if isinstance(value, torch.Tensor) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {KIND: 'ndarray', 'data': torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {encode(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [encode(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, BaseDataElement):
        kind = next(kind.__name__ for kind in type(value).__mro__ if kind.__name__ in ELEMENTS)
        return {KIND: kind, 'metainfo': encode(value.metainfo), 'data': {key: encode(item) for key, item in value.items()}}
    if isinstance(value, BaseBoxes):
        return {KIND: 'boxes' if isinstance(value, HorizontalBoxes) else 'tensor', 'data': value.tensor.detach().cpu()}
    if type(value).__name__ in MASKS:
        return {KIND: type(value).__name__, 'data': [encode(value.masks), value.height, value.width]}
    return {KIND: 'unknown', 'data': repr(value)}


def decode(value):
    """What ``encode`` got; its descriptions of unknown things stay descriptions."""
    if isinstance(value, (list, tuple)):
        return type(value)(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value.get(KIND)
    if kind is None:
        return {key: decode(item) for key, item in value.items()}
    if kind in ELEMENTS:
        return ELEMENTS[kind](metainfo=decode(value['metainfo']), **decode(value['data']))
    if kind in MASKS:
        return MASKS[kind](*decode(value['data']))
    if kind == 'boxes':
        return HorizontalBoxes(value['data'])
    return value['data'].numpy() if kind == 'ndarray' else value['data']
