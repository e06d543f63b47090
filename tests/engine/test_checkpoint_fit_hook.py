"""What a training may go on from. That checkpoints of other models are refused: tests/reliability/bad_checkpoints.py."""

import pytest
import torch

from .tiny_training import TinyData, tiny_runner

HOOKS = [dict(type=f'mmdet_detr_plugin.{name}') for name in ('EpochSeedHook', 'PlainCheckpointHook', 'CheckpointFitHook')]


def messages_of(monkeypatch, runner) -> list[str]:
    messages = []
    monkeypatch.setattr(runner.logger, 'warning', lambda message, *args, **kwargs: messages.append(message))
    runner.train()
    return messages


@pytest.mark.parametrize('lost', ['optimizer', 'param_schedulers'])
def test_resuming_without_the_optimiser_or_the_schedule_is_refused(tmp_path, lost):
    """mmengine's best_*.pth have neither: warm-up would begin again, and drops come too late."""
    tiny_runner(tmp_path / 'a', epochs=2, custom_hooks=HOOKS).train()
    path = tmp_path / 'a' / 'epoch_2.pth'
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[lost]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=rf'epoch_2.pth has no {lost}, so that no training can go on from it.*epoch_\*.pth.*load_from'):
        tiny_runner(tmp_path / 'a', epochs=3, resume=True, custom_hooks=HOOKS).train()
    tiny_runner(tmp_path / 'b', epochs=1, load_from=str(path), custom_hooks=HOOKS).train()


def test_load_from_with_as_many_classes_of_other_names_is_announced(tmp_path, monkeypatch):
    """A class went and another came: names move by a row, and every weight still fits."""
    monkeypatch.setattr(TinyData, 'metainfo', dict(classes=('bee', 'cat', 'dog')), raising=False)
    tiny_runner(tmp_path / 'a', epochs=1, custom_hooks=HOOKS).train()
    weights = str(tmp_path / 'a' / 'epoch_1.pth')

    def messages_with(classes):
        monkeypatch.setattr(TinyData, 'metainfo', dict(classes=classes))
        runner = tiny_runner(tmp_path / 'b', epochs=1, load_from=weights, custom_hooks=HOOKS)
        return [message for message in messages_of(monkeypatch, runner) if 'label i' in message]

    assert messages_with(('bee', 'cat', 'dog')) == messages_with(('bee', 'cat')) == []
    (message,) = messages_with(('ant', 'bee', 'cat'))
    assert "('bee', 'cat', 'dog'), the data to train on has ('ant', 'bee', 'cat')" in message and '--classes' in message


def test_another_schedule_than_the_checkpoints_is_announced(tmp_path, monkeypatch):
    """mmengine overwrites the config's with the checkpoint's: a longer training would stay at the dropped rate."""
    schedule = [dict(type='MultiStepLR', milestones=[3], gamma=0.1, end=9)]
    tiny_runner(tmp_path, epochs=1, custom_hooks=HOOKS, param_scheduler=schedule).train()
    assert messages_of(monkeypatch, tiny_runner(tmp_path, epochs=2, resume=True, custom_hooks=HOOKS, param_scheduler=schedule)) == []
    other = [dict(type='MultiStepLR', milestones=[6], gamma=0.1, end=9), dict(type='ConstantLR', factor=0.5)]
    runner = tiny_runner(tmp_path, epochs=3, resume=True, custom_hooks=HOOKS, param_scheduler=other)
    milestones, number = messages_of(monkeypatch, runner)
    assert 'MultiStepLR has milestones={3: 1}' in milestones and '{6: 1}' in milestones and 'load_from' in milestones
    assert 'has 1 schedules, the config 2' in number
