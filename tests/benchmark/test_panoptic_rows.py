"""The rows of panoptic training: equal gradients first, then times and memory of each."""

import pytest

from mmdet_detr_plugin.benchmark import panoptic, panoptic_peers


@pytest.mark.slow
def test_rows_measure_equal_networks(monkeypatch):
    """Half a minute."""
    row = panoptic.training_row('cpu', rounds=1, size=(96, 128))
    assert row.values.keys() == {'plugin', 'all queries'} and all(len(values) == 1 for values in row.values.values())
    assert row.notes[0].startswith('fp32 gradients of plugin and all queries differ by')
    rows = panoptic.memory_row('cpu', size=(96, 128), hf_size=(96, 128))
    assert all(values[0] > 300 for row in rows for values in row.values.values())  # the weights alone are 160 MiB, with gradients twice
    loss = panoptic_peers.AllMasksHead.loss
    monkeypatch.setattr(panoptic_peers.AllMasksHead, 'loss', lambda *args: {name: 2 * value for name, value in loss(*args).items()})
    with pytest.raises(AssertionError, match='gradients of the plugin and of all queries differ'):
        panoptic.training_row('cpu', rounds=1, size=(96, 128))
