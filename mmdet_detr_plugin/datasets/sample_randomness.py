"""Random augmentation that belongs to the sample: it depends on (seed, epoch, sample) and on nothing else.

This reaches transforms that draw from the global generators of Python, NumPy and torch, and keep nothing from sample to sample; all of
mmdet's except those with a cache (``CachedMosaic``, ``CachedMixUp``).

mmdet draws from its worker's global generators. What an image looks like then depends on the number of workers, on the worker that happened
to load it and on what was drawn before, and with workers that live on every epoch continues elsewhere while with new ones it repeats. Two
models never see the same pixels, and a resumed run sees others than the interrupted one would have.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from ..random_state import preserved_generators, seed_generators
from ..registry import DATASETS
from .data_files import data_files_of, refuse_code

SAMPLE_STREAM = 1  # apart from the streams that the main processes train with


class SampleRandomness:
    """Seeds the global generators around the loading of one sample, once ``set`` was called.

    A data set owns one as ``sample_randomness`` and loads its samples inside ``of(index)``.
    """

    def __init__(self) -> None:
        # In shared memory: persistent workers hold copies of the data set from before the first epoch, and must learn of the next one.
        self._state = torch.zeros(3, dtype=torch.int64).share_memory_()  # active, seed, epoch

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._state.share_memory_()  # copies are not shared by themselves

    def set(self, seed: int, epoch: int) -> None:
        """Start an epoch, in this process and in the workers it already has; to be called between the epochs of the loader."""
        if seed < 0 or epoch < 0:
            raise ValueError(f'seed and epoch must be at least 0, got {seed} and {epoch}')
        self._state.copy_(torch.tensor([1, seed, epoch]))

    @contextmanager
    def of(self, index: int) -> Iterator[None]:
        """Inside, the generators run on the sample's own stream; afterwards they go on where they were."""
        active, seed, epoch = self._state.tolist()
        if not active:
            yield
            return
        with preserved_generators():
            seed_generators(seed, SAMPLE_STREAM, epoch, index)
            yield


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Gives any data set random augmentation that belongs to the sample; ``StrictCocoDataset`` has it by itself.

    It must be the outermost data set: ``SeededDataset(MultiImageMixDataset(...))``, so that whatever the inner ones draw is covered and a
    repeated image counts as another sample. What samplers and hooks read or set (``metainfo``, ``pipeline`` ...) is the inner one's.

    Args:
        dataset: the data set or its config.

    Raises:
        ValueError: when there are other arguments, which an inherited config has left, or a config names a data file that can run code.
    """

    def __init__(self, dataset: dict | Dataset, **inherited) -> None:
        if inherited:
            raise ValueError(
                f'SeededDataset takes the argument dataset only, got {sorted(inherited)} too; in a config that inherits these, write '
                "dataset=dict(_delete_=True, type='mmdet_detr_plugin.SeededDataset', dataset=...)"
            )
        for option, name in data_files_of(dataset) if isinstance(dataset, dict) else ():
            refuse_code(name, option)
        self.__dict__['dataset'] = MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.__dict__['sample_randomness'] = SampleRandomness()

    def __getattr__(self, name: str):
        if name == 'dataset' or name.startswith('__'):  # while being unpickled, and what Python and torch ask a class for
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        with self.sample_randomness.of(index):
            return self.dataset[index]
