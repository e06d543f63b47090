"""Checkpoints of plain values."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdet_detr_plugin.engine.plain_checkpoint_hook import PlainCheckpointHook, to_plain


def message_hub() -> dict:
    return dict(
        log_scalars=OrderedDict({'train/loss': HistoryBuffer([3.0, 2.0, 1.0], [1, 1, 2], max_length=7)}),
        runtime_info=OrderedDict(best_score=np.float64(0.25), epoch=3, classes=('a', 'b')),
        resumed_keys=OrderedDict(epoch=True),
    )


def test_saved_file_loads_safely_and_restores_history(tmp_path):
    checkpoint = dict(message_hub=message_hub(), state_dict=dict(w=torch.ones(2)), meta=dict(seed=np.int64(3), shape=torch.Size([2, 3])))
    hook = PlainCheckpointHook()
    torch.save(checkpoint, tmp_path / 'before.pth')
    with pytest.raises(Exception, match='weights_only|Weights only'):
        torch.load(tmp_path / 'before.pth', weights_only=True)
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'after.pth')
    loaded = torch.load(tmp_path / 'after.pth', weights_only=True)
    hook.after_load_checkpoint(None, loaded)
    buffer, original = loaded['message_hub']['log_scalars']['train/loss'], message_hub()['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer) and buffer.max_length == 7
    for ours, theirs in zip(buffer.data, original.data):
        assert np.array_equal(ours, theirs)
    buffer.update(5.0)
    assert buffer.current() == 5.0 and buffer.mean(4) == pytest.approx((3 + 2 + 1 + 5) / (1 + 1 + 2 + 1))
    assert loaded['message_hub']['runtime_info'] == dict(best_score=0.25, epoch=3, classes=('a', 'b'))
    assert loaded['meta'] == dict(seed=3, shape=(2, 3)) and type(loaded['meta']['seed']) is int


def test_history_on_a_device_is_brought_to_the_host():
    """mmengine resumes with all tensors on the GPU, where numpy cannot read them."""

    class OnDevice:
        def cpu(self):
            return torch.tensor([1.0, 2.0])

    history = dict(log_history=OnDevice(), count_history=OnDevice(), max_length=5)
    checkpoint = dict(message_hub=dict(log_scalars=dict(x=history)))
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint['message_hub']['log_scalars']['x'].current() == 2.0


def test_checkpoint_of_another_origin_is_left_alone():
    checkpoint = dict(state_dict=dict(w=torch.ones(1)))
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    assert list(checkpoint) == ['state_dict']


def test_metainfo_that_cannot_be_saved_costs_no_epoch():
    def runner(**metainfo):
        return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo)))

    PlainCheckpointHook().before_train(runner(classes=('a',), palette=[(1, 2, 3)]))
    with pytest.raises(TypeError, match=r'found complex in meta\.dataset_meta\.a: 2j'):
        PlainCheckpointHook().before_train(runner(a=2j))


def test_value_that_is_not_plain_is_named():
    with pytest.raises(TypeError, match='tensors and plain values only, found complex'):
        to_plain(dict(a=[1, 2j]))
