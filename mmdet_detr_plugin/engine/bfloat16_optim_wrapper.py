"""Training in bfloat16, on CPUs too, which mmengine's ``AmpOptimWrapper`` refuses."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward and losses under bfloat16 autocast, for every detector; weights, gradients and optimiser states stay float32.

    bfloat16 has float32's range, so that no loss scaling is needed. For float16, and on GPUs, mmengine's ``AmpOptimWrapper`` serves.

    Args:
        kwargs: mmengine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._checked = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """What one forward pass runs in."""
        device = next(model.parameters()).device.type
        if device == 'cpu' and not self._checked and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            warnings.warn(
                'This CPU has no bfloat16 arithmetic: training is correct, and slower than in float32 (OptimWrapper).', stacklevel=2
            )
        self._checked = True
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
