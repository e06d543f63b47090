"""Training in bfloat16, on CPUs too, which mmengine's ``AmpOptimWrapper`` refuses."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..models.onednn import HAS_BF16
from ..registry import OPTIM_WRAPPERS

# what runs mmcv's operations, and heads whose outputs go into losses, box decoding and NMS
OPERATIONS = ('mmcv.ops.', 'mmdet.models.roi_heads.roi_extractors.')
HEADS = ('mmdet.models.dense_heads.', 'mmdet.models.roi_heads.bbox_heads.', 'mmdet.models.roi_heads.mask_heads.')


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward and losses under bfloat16 autocast, for every detector; weights, gradients and optimiser states stay float32.

    bfloat16 has float32's range, so that no loss scaling is needed. mmcv's operations (RoI align, deformable convolution, NMS) have no
    bfloat16: those that are modules run in float32, and what mmdet's heads return is made float32.

    Args:
        kwargs: mmengine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._is_prepared = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """What one forward pass runs in."""
        device = next(model.parameters()).device.type
        if not self._is_prepared:
            self._prepare(model, device)
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield

    def _prepare(self, model: nn.Module, device: str) -> None:
        self._is_prepared = True
        if device == 'cpu' and not HAS_BF16:
            warnings.warn('This CPU has no bfloat16 arithmetic: training is correct, and slower than with OptimWrapper', stacklevel=4)
        for module in model.modules():
            origin = type(module).__module__
            if origin.startswith(OPERATIONS):
                module.register_forward_pre_hook(_enter_float32, with_kwargs=True)
                module.register_forward_hook(_leave_float32, always_call=True)
            if origin.startswith(HEADS):
                module.register_forward_hook(_outputs_to_float32)


def _enter_float32(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    context = torch.autocast(next(_tensors((args, kwargs))).device.type, enabled=False)
    context.__enter__()
    module.__dict__.setdefault('_float32_contexts', []).append(context)
    return _to_float32(args), _to_float32(kwargs)


def _leave_float32(module: nn.Module, inputs: tuple, outputs) -> None:
    module._float32_contexts.pop().__exit__(None, None, None)


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _outputs_to_float32(module: nn.Module, inputs: tuple, outputs):
    return _to_float32(outputs)


def _to_float32(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, (list, tuple)) and not hasattr(value, '_fields'):
        return type(value)(_to_float32(item) for item in value)
    return {key: _to_float32(item) for key, item in value.items()} if isinstance(value, dict) else value
