"""One set of batch norm statistics for all ranks."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import HOOKS


@HOOKS.register_module()
class SyncNormStatsHook(Hook):
    """Averages the running statistics of batch norms that are trained over ranks: at the end of every epoch, or before validation in a loop
    of iterations; those of the averaged model (EMA) too.

    Each rank keeps running statistics of the images it saw. Without this, every rank evaluates another model than the one in the
    checkpoint, which holds rank 0's, and a resumed run goes on from others. Frozen batch norms are left alone. mmengine's
    ``SyncBuffersHook`` averages all buffers, rounds those that are constant, and leaves out the averaged model.
    """

    priority = 'LOW'  # after the last update of the averaged model, and before the checkpoint

    def after_train_epoch(self, runner) -> None:
        self._synchronise(runner)

    def before_val_epoch(self, runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._synchronise(runner)

    def _synchronise(self, runner) -> None:
        if get_world_size() == 1:
            return
        model = getattr(runner.model, 'module', runner.model)
        trained = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training]
        models = [model, *(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))]
        average_norm_stats([_unwrapped(model).get_submodule(name) for model in models for name in trained])


def average_norm_stats(norms: list[nn.Module]) -> None:
    """Replace running means and variances by their averages over ranks; all in one message."""
    stats = [stat for norm in norms for stat in (norm.running_mean, norm.running_var) if stat is not None]
    if stats:
        flat = torch.cat([stat.flatten() for stat in stats])
        all_reduce(flat, op='mean')
        for stat, mean in zip(stats, flat.split([stat.numel() for stat in stats]), strict=True):
            stat.copy_(mean.view_as(stat))


def _unwrapped(model: nn.Module) -> nn.Module:
    return getattr(model, 'module', model)
