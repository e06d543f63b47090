"""mmengine's loading of checkpoints made safe, by importing this module: the shipped configs, models and hooks do.

mmengine 0.10.7 leaves it to ``torch.load`` whether a file may run code. Its default since torch 2.6 is that it may not; but the variable
``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``, a common way around refused checkpoints, opens every file, and what comes from an address may run code
without any variable (``torch.hub`` passes ``weights_only=False``). Both reach ``tools/train.py`` (``load_from``, ``--resume``,
``last_checkpoint``), ``tools/test.py``, ``init_detector`` and ``init_cfg``.
"""

from collections.abc import Callable
from functools import wraps

from mmengine.runner import CheckpointLoader

from .reading import reading_weights_only


def make_loading_safe() -> None:
    """Every scheme of mmengine's ``CheckpointLoader`` then reads tensors and plain values alone; a second call changes nothing.

    Whatever else calls ``torch.load`` is left as it is.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if not hasattr(loader, 'reads_weights_only'):
            CheckpointLoader.register_scheme(prefix, _guarded(loader), force=True)


def _guarded(loader: Callable) -> Callable:
    @wraps(loader)  # mmengine prints its name
    def load(filename: str, *args, **kwargs):
        with reading_weights_only(filename):
            return loader(filename, *args, **kwargs)

    load.reads_weights_only = True
    return load


make_loading_safe()
