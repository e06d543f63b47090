"""Checkpoints that ``torch.load`` reads safely.

mmengine 0.10.7 stores its message hub as ``HistoryBuffer`` objects. Since torch 2.6 ``torch.load`` refuses such files unless arbitrary
code may run, so that mmdet's ``tools/test.py``, ``--resume`` and ``init_detector`` fail on every checkpoint mmengine writes. Storing plain
values instead keeps the files readable everywhere, also where this plugin is never imported.
"""

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from ..registry import HOOKS

_BUFFER_KEYS = {'log_history', 'count_history', 'max_length'}


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Writes checkpoints of tensors and plain Python values only, and restores mmengine's objects when training resumes.

    Model-independent: any detector's config may name it in ``custom_hooks``.
    """

    priority = 'LOWEST'  # after every other hook has added its own state

    def before_train(self, runner) -> None:
        """What every checkpoint will hold of the data set is looked at before an epoch is spent."""
        to_plain(getattr(runner.train_dataloader.dataset, 'metainfo', None), where='meta.dataset_meta')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        for key in checkpoint:
            if key not in ('state_dict', 'ema_state_dict', 'optimizer'):  # tensors and numbers already
                checkpoint[key] = to_plain(checkpoint[key], where=key)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if isinstance(value, dict) and set(value) == _BUFFER_KEYS:
                # to the host: mmengine resumes with everything on the GPU
                log_history, count_history = (value[name].cpu().numpy() for name in ('log_history', 'count_history'))
                scalars[key] = HistoryBuffer(log_history, count_history, value['max_length'])


def to_plain(value, where: str = 'value'):
    """The same value made of dicts, lists, tuples, tensors, strings, numbers, None.

    Raises:
        TypeError: for anything else, naming its type and its place.
    """
    if isinstance(value, HistoryBuffer):
        log_history, count_history = value.data
        return dict(
            log_history=torch.as_tensor(np.array(log_history)),
            count_history=torch.as_tensor(np.array(count_history)),
            max_length=value.max_length,
        )
    if isinstance(value, dict):
        return {to_plain(key, where): to_plain(item, f'{where}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f'{where}[{index}]') for index, item in enumerate(value)]
        return items if type(value) is list else tuple(items)
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (torch.Tensor, str, bytes, int, float, bool, type(None))):
        return value
    raise TypeError(
        f'a checkpoint may hold tensors and plain values only, found {type(value).__name__} in {where}: {value!r:.80}. Keep other objects '
        'out of metainfo and of the message hub (info that need not be saved: update_info(..., resumed=False))'
    )
