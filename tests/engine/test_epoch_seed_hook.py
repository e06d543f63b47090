"""Every epoch starts from its own random state, and what would break that is refused."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from torch.utils.data import ConcatDataset

from .tiny_training import TinyData, tiny_runner


@DATASETS.register_module()
class TinyJoined(TinyData):
    """A wrapper of joined data sets, of which it has the annotations alone."""

    def __init__(self, files: list[str]) -> None:
        super().__init__()
        del self.ann_file
        self.dataset = ConcatDataset([TinyData(ann_file=file) for file in files])


class Record(Hook):
    """The batches and the main process's next random number in every iteration."""

    def __init__(self) -> None:
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        with torch.random.fork_rng(devices=[]):
            draw = torch.rand(()).item()
        self.seen[runner.epoch, batch_idx] = (torch.stack(data_batch).tolist(), draw)


def seen(work, **settings) -> dict:
    record = Record()
    runner = tiny_runner(work, **settings)
    runner.register_hook(record)
    runner.train()
    if runner.train_dataloader.persistent_workers:
        runner.train_dataloader._iterator._shutdown_workers()  # the garbage collector needs 10 s for it
    return record.seen


def test_batches_and_draws_do_not_depend_on_the_past(tmp_path):
    straight = seen(tmp_path / 'straight', epochs=3)
    assert len(straight) == 9
    assert len({draw for _, draw in straight.values()}) == 9
    assert len({str(sample) for batch, _ in straight.values() for sample in batch}) == 15  # 5 samples, drawn anew in each epoch
    tiny_runner(tmp_path / 'resumed', epochs=2).train()
    resumed = seen(tmp_path / 'resumed', epochs=3, resume=True)
    assert resumed == {key: value for key, value in straight.items() if key[0] == 2}


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_change_nothing(tmp_path, persistent):
    loader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='TinyData'))
    straight = seen(tmp_path / 'straight', epochs=3)
    workers = dict(loader, num_workers=2, persistent_workers=persistent)
    assert seen(tmp_path / 'workers', epochs=3, train_dataloader=workers) == straight


@pytest.mark.parametrize(
    'randomness, message',
    [
        (dict(seed=None), r'needs a seed, and randomness.seed is not set; write randomness=dict\(seed=0\)'),
        (dict(seed=0, diff_rank_seed=True), 'randomness.diff_rank_seed must be False'),
    ],
)
def test_seed_is_required(tmp_path, randomness, message):
    with pytest.raises(ValueError, match=message):
        tiny_runner(tmp_path, randomness=randomness).train()


def test_data_set_that_cannot_be_seeded_is_named(tmp_path):
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='TinyData', seeded=False))
    with pytest.raises(ValueError, match=r"TinyData cannot give every sample.*_delete_=True, type='mmdet_detr_plugin.SeededDataset'"):
        tiny_runner(tmp_path, train_dataloader=loader).train()


def test_training_by_iterations_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'needs a loop of epochs .* got IterBasedTrainLoop; .*remove the hook'):
        tiny_runner(tmp_path, train_cfg=dict(by_epoch=False, max_iters=4)).train()


@pytest.mark.parametrize('wrapped', [False, True])
def test_resuming_on_annotations_that_have_changed_is_refused(tmp_path, wrapped):
    """As many images, divided otherwise: the iterations of an epoch are the same."""
    path = tmp_path / 'train.json'
    dataset = dict(type='TinyData', ann_file=str(path))
    if wrapped:
        dataset = dict(type='mmdet_detr_plugin.SeededDataset', dataset=dict(dataset, seeded=False))
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset)
    tiny_runner(tmp_path / 'before', epochs=1).train()  # by a version that noted nothing
    path.write_text('{"images": [1, 2]}')
    tiny_runner(tmp_path / 'before', epochs=2, resume=True, train_dataloader=loader).train()
    tiny_runner(tmp_path / 'run', epochs=1, train_dataloader=loader).train()
    tiny_runner(tmp_path / 'run', epochs=2, resume=True, train_dataloader=loader).train()
    path.write_text('{"images": [1, 3]}')
    for run in ('before', 'run'):
        with pytest.raises(ValueError, match=r'train.json is not the file .* was trained on.*load_from'):
            tiny_runner(tmp_path / run, epochs=3, resume=True, train_dataloader=loader).train()
    tiny_runner(tmp_path / 'new', epochs=1, load_from=str(tmp_path / 'run' / 'epoch_2.pth'), train_dataloader=loader).train()


def test_each_of_joined_data_sets_counts_for_what_was_trained_on(tmp_path):
    files = [tmp_path / name for name in ('day.json', 'night.json')]
    for file in files:
        file.write_text('{}')
    joined = dict(type='TinyJoined', files=[str(file) for file in files])
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=joined)

    def train(**settings):
        tiny_runner(tmp_path / 'run', train_dataloader=loader, **settings).train()

    train(epochs=1)
    train(epochs=2, resume=True)
    files[1].write_text('{"images": [1]}')
    with pytest.raises(ValueError, match=r'day.json, .*night.json is not the file .* was trained on'):
        train(epochs=3, resume=True)


def test_resuming_with_another_seed_is_refused(tmp_path):
    tiny_runner(tmp_path, epochs=1).train()
    with pytest.raises(ValueError, match=r'trained with the seed 0, the config has randomness.seed=5.*Set randomness.seed=0'):
        tiny_runner(tmp_path, resume=True, randomness=dict(seed=5)).train()


def test_resuming_with_another_batch_size_is_refused(tmp_path):
    tiny_runner(tmp_path, epochs=1).train()
    loader = dict(batch_size=5, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='TinyData'))
    with pytest.raises(ValueError, match=r'holds 3 iterations in 1 epochs, this run has 1 in each: the batch size, .* has changed'):
        tiny_runner(tmp_path, resume=True, train_dataloader=loader).train()


@pytest.mark.parametrize('iteration', range(1, 7))
def test_a_checkpoint_within_an_epoch_lets_that_epoch_begin_anew(tmp_path, monkeypatch, iteration):
    """Also the one of an epoch's last iteration, which mmengine writes before it counts the epoch."""
    by_iterations = dict(by_epoch=False, interval=1, max_keep_ckpts=-1, save_best=None)
    straight = seen(tmp_path, epochs=2, checkpoint=by_iterations)
    runner = tiny_runner(tmp_path, epochs=2, resume=True, load_from=str(tmp_path / f'iter_{iteration}.pth'), checkpoint=by_iterations)
    record, messages = Record(), []
    runner.register_hook(record)
    monkeypatch.setattr(runner.logger, 'warning', lambda message, *args: messages.append(message))
    runner.train()
    epoch = (iteration - 1) // 3
    assert record.seen == {(number, batch): batches for (number, batch), batches in straight.items() if number >= epoch}
    assert (runner.epoch, runner.iter) == (2, 6)
    assert any(f'{iteration - 3 * epoch} of 3 iterations of epoch {epoch + 1}, which begins anew' in message for message in messages)


def test_a_checkpoint_within_an_epoch_of_another_size_is_refused(tmp_path):
    by_iterations = dict(by_epoch=False, interval=1, max_keep_ckpts=-1, save_best=None)
    tiny_runner(tmp_path, epochs=1, checkpoint=by_iterations).train()
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='TinyData'))
    with pytest.raises(ValueError, match=r'holds 2 iterations in 0 epochs, this run has 5 in each'):
        tiny_runner(
            tmp_path, resume=True, load_from=str(tmp_path / 'iter_2.pth'), train_dataloader=loader, checkpoint=by_iterations
        ).train()


def test_gradients_that_stay_pending_are_warned_of(tmp_path, monkeypatch):
    for counts, expected in ((3, []), (2, ['2 iterations of accumulated gradients do not divide the 3 of an epoch'])):
        runner = tiny_runner(
            tmp_path / str(counts), epochs=1, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=counts)
        )
        messages = []
        monkeypatch.setattr(runner.logger, 'warning', messages.append)
        runner.train()
        assert [message.split(':')[0] for message in messages] == expected


def test_evaluation_needs_no_seed(tmp_path):
    runner = tiny_runner(tmp_path, randomness=dict(seed=None))
    runner.val_evaluator.metrics[0].runner_epoch = lambda: 1
    assert runner.val() == {'tiny/score': 0.2}
