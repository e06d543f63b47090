"""One set of batch norm statistics for all ranks."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import HOOKS


@HOOKS.register_module()
class SyncNormStatsHook(Hook):
    """Averages the running statistics of batch norms that are trained over ranks, at the end of every epoch.

    Each rank keeps running statistics of the images it saw. Without this, every rank evaluates another model than the one in the
    checkpoint, which holds rank 0's, and a resumed run goes on from others. Frozen batch norms are left alone. mmengine's
    ``SyncBuffersHook`` averages all buffers, too late for an averaged model (EMA), and rounds those that are constant.
    """

    priority = 'HIGH'  # before EMAHook takes over the statistics, and before the checkpoint

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if get_world_size() == 1 or not self.end_of_epoch(runner.train_dataloader, batch_idx):
            return
        norms = [module for module in runner.model.modules() if isinstance(module, _BatchNorm) and module.training]
        stats = [stat for norm in norms for stat in (norm.running_mean, norm.running_var) if stat is not None]
        if stats:
            flat = torch.cat([stat.flatten() for stat in stats])
            all_reduce(flat, op='mean')
            for stat, mean in zip(stats, flat.split([stat.numel() for stat in stats]), strict=True):
                stat.copy_(mean.view_as(stat))
