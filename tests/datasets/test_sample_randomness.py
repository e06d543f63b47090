"""What a sample draws depends on (seed, epoch, sample) and on nothing else."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader, Dataset, Subset

from mmdet_detr_plugin.datasets.sample_randomness import SeededDataset


class Draws(Dataset):
    """A data set whose samples are what the three global generators yield."""

    metainfo = dict(classes=('a',))

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple:
        if index == 99:
            raise KeyError('planted')
        return index, random.random(), np.random.random(), torch.rand(()).item()


def drawn(epochs: int = 3, seed: int = 7, order=None, **loader) -> list[list[tuple]]:
    dataset = SeededDataset(Draws())
    data = DataLoader(dataset, batch_size=None, sampler=order, **loader)
    result = []
    for epoch in range(epochs):
        dataset.sample_randomness.set(seed, epoch)
        result.append(sorted(tuple(map(float, item)) for item in data))
    return result


def global_states() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    'loader',
    [
        dict(num_workers=1),
        dict(num_workers=2),
        dict(num_workers=2, persistent_workers=True),
        dict(num_workers=3, persistent_workers=True, prefetch_factor=3),
        dict(order=[5, 4, 3, 2, 1, 0]),
        dict(order=[3, 0, 5, 1, 4, 2], num_workers=2, persistent_workers=True),
    ],
    ids=str,
)
def test_draws_do_not_depend_on_workers_or_order(loader):
    expected = drawn()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    assert drawn(**loader) == expected


def test_draws_do_not_depend_on_how_workers_start():
    assert drawn(num_workers=1, persistent_workers=True, multiprocessing_context='spawn') == drawn()


def test_every_sample_epoch_and_seed_draws_something_else():
    runs = [drawn(seed=seed) for seed in (7, 8)]
    for position in (1, 2, 3):
        values = [sample[position] for run in runs for epoch in run for sample in epoch]
        assert len(set(values)) == len(values) == 2 * 3 * 6
    assert drawn(seed=7) == runs[0]


def test_main_process_goes_on_as_if_nothing_was_drawn():
    dataset = SeededDataset(Draws())
    dataset.sample_randomness.set(0, 0)
    before = global_states()
    dataset[3]
    assert global_states() == before
    with pytest.raises(KeyError, match='planted'):
        dataset[99]
    assert global_states() == before


def test_unset_randomness_leaves_the_generators_alone():
    dataset = SeededDataset(Draws())
    torch.manual_seed(5)
    expected = torch.rand(()).item()
    torch.manual_seed(5)
    assert dataset[0][3] == expected


def test_known_draw():
    """The same on every machine and in every release: published runs stay repeatable."""
    dataset = SeededDataset(Draws())
    dataset.sample_randomness.set(0, 0)
    assert dataset[0] == pytest.approx((0, 0.9255909, 0.2566349, 0.1153763), abs=1e-6)


def test_repeated_images_are_other_samples(shapes_dir):
    """The outermost data set counts; the inner one, which can seed too, stays out of it."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PlantedDraw'), dict(type='PackDetInputs', meta_keys=('img_path', 'draw'))]
    inner = dict(
        type='mmdet_detr_plugin.StrictCocoDataset',
        data_root=str(shapes_dir),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=('circle', 'square', 'triangle', 'star')),
        pipeline=pipeline,
    )
    dataset = DATASETS.build(dict(type='mmdet_detr_plugin.SeededDataset', dataset=dict(type='RepeatDataset', times=2, dataset=inner)))
    dataset.sample_randomness.set(0, 0)
    assert len(dataset) == 32
    first, again = (dataset[index]['data_samples'] for index in (1, 17))
    assert first.img_path == again.img_path and first.draw != again.draw
    assert first.draw == dataset[1]['data_samples'].draw


@TRANSFORMS.register_module()
class PlantedDraw(BaseTransform):
    def transform(self, results: dict) -> dict:
        return {**results, 'draw': np.random.random()}


def test_wrapper_shows_what_it_wraps():
    dataset = SeededDataset(Draws())
    assert len(dataset) == 6 and dataset.metainfo == dict(classes=('a',))
    with pytest.raises(AttributeError, match='nonsense'):
        getattr(dataset, 'nonsense')  # noqa: B009
    dataset.pipeline = 'switched'  # as mmdet's PipelineSwitchHook does
    assert dataset.dataset.pipeline == dataset.pipeline == 'switched'


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))], ids=['deepcopy', 'pickle'])
def test_copies_tell_their_persistent_workers_the_epoch(duplicate):
    dataset = duplicate(SeededDataset(Draws()))
    loader, epochs = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True), []
    for epoch in range(2):
        dataset.sample_randomness.set(7, epoch)
        epochs.append(sorted(tuple(map(float, item)) for item in loader))
    assert epochs == drawn(epochs=2)


def test_data_sets_that_load_whole_batches_are_seeded_too():
    """torch's ``Subset`` has ``__getitems__``, which a loader of batches prefers."""
    dataset = SeededDataset(Subset(Draws(), [4, 1, 3]))
    loader, epochs = DataLoader(dataset, batch_size=2, collate_fn=list), []
    for _ in range(2):
        dataset.sample_randomness.set(7, 0)
        epochs.append([sample for batch in loader for sample in batch])
    assert epochs[0] == epochs[1] and [sample[0] for sample in epochs[0]] == [4, 1, 3]


def test_inherited_arguments_are_answered_with_the_cure():
    with pytest.raises(ValueError, match=r"argument dataset only, got \['data_root'\] too; .*dict\(_delete_=True, type='mmdet_detr"):
        SeededDataset(Draws(), data_root='x')


@pytest.mark.parametrize('seed, epoch', [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed, epoch):
    with pytest.raises(ValueError, match=f'must be at least 0, got {seed} and {epoch}'):
        SeededDataset(Draws()).sample_randomness.set(seed, epoch)
