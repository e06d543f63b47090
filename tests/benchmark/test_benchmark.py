"""The benchmark's arithmetic by hand, and its command line on the smallest rows."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from statistics import median

import pytest
import torch
from torch import nn

from mmdet_detr_plugin.benchmark import peers, rows
from mmdet_detr_plugin.benchmark.flops import giga_multiply_adds
from mmdet_detr_plugin.benchmark.results import Row, table
from mmdet_detr_plugin.benchmark.scaling import Growth
from mmdet_detr_plugin.benchmark.timing import interleaved, ratio, working_memory
from mmdet_detr_plugin.models.transformer import MultiheadAttention

from ..conftest import ROOT


def test_ratio_is_the_median_over_rounds_and_missed_targets_are_said():
    row = Row('x', 'some work', values=dict(plugin=[1.0, 4.0, 3.0], mmdet=[2.0, 4.0, 10.0]), target=dict(mmdet=0.4))
    assert ratio(row.values['plugin'], row.values['mmdet']) == 0.5  # of 0.5, 1.0 and 0.3
    assert '| some work | 3 ms | 4 ms | 0.50 | mmdet 0.40 missed |' in table([row])
    assert 'nothing: not measured' in table([row, Row('y', 'nothing')])


def test_functions_take_turns():
    calls = []
    interleaved({name: lambda name=name: calls.append(name) for name in 'ab'}, rounds=2, warmup=1)
    assert ''.join(calls) == 'ababab'


def test_exponent_of_a_power_law():
    sizes = [1, 2, 4, 8]
    growth = Growth('size', 'work', sizes, [3 * size**1.5 for size in sizes], [10.0] * 4)
    assert growth.exponents() == pytest.approx((1.5, 0.0))


def test_working_memory_is_that_of_the_tensors():
    def fill_40_mebibytes():
        torch.ones(10 * 2**20).sum()

    assert 38 < working_memory(fill_40_mebibytes, 'cpu') < 60


def test_multiply_adds_include_attention():
    attention = MultiheadAttention(embed_dims=32, num_heads=4).eval()
    x = torch.randn(1, 50, 32)
    projections, products = 4 * 50 * 32 * 32, 2 * 50 * 50 * 32
    with torch.no_grad():
        assert giga_multiply_adds(lambda: attention(x, x, x)) * 1e9 == pytest.approx(projections + products)
        predict = rows.predictor(peers.build(peers.model_config('detr_r18-half_1xb4-10e_shapes')), *rows.random_batch(1, 64, 64, 0, 'cpu'))
        assert 0.3 < giga_multiply_adds(predict) < 1
        assert giga_multiply_adds(lambda: nn.Conv2d(3, 8, 3)(torch.zeros(1, 3, 10, 10))) * 1e9 == 8 * 8 * 8 * 27


def test_peers_compute_the_same():
    config = peers.model_config('detr_r18-half_1xb4-10e_shapes')
    assert peers.mmdet_config(config)['backbone']['dilations'] == (1, 1, 1, 2)
    models = peers.equal_detrs('detr_r18_8xb2-1x_coco', num_encoder_layers=1, num_decoder_layers=2)
    images, samples = rows.random_batch(1, 96, 128, 0, 'cpu')
    found = {name: rows.predictor(model, images, samples)() for name, model in models.items()}
    boxes = found['plugin'][0].pred_instances.bboxes
    torch.testing.assert_close(found['mmdet'][0].pred_instances.bboxes, boxes, atol=0.1, rtol=0)
    assert boxes.std(0).min() > 0.1  # pixels: queries differ
    if 'HF' in found:
        scores = found['HF'][0].values[0].sort(descending=True).values
        torch.testing.assert_close(scores, found['plugin'][0].pred_instances.scores, atol=1e-4, rtol=0)


def test_command_line(tmp_path):
    def run(*args):
        command = [sys.executable, '-W', 'ignore', ROOT / 'tools' / 'benchmark.py', *map(str, args)]
        path = os.environ['PYTHONPATH'].split(os.pathsep)[1:]  # with transformers, where it is there
        environ = {**os.environ, 'PYTHONPATH': os.pathsep.join(path)}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)

    done = run('--rows', 'loss', '--rounds', 1, '--json', tmp_path / 'found.json')
    assert done.returncode == 0, done.stderr
    assert 'matching + losses + backward, 6 x 16 x 100 queries x 7 objects' in done.stdout
    found = json.loads((tmp_path / 'found.json').read_text())
    (row,) = found['rows']
    by_round = [ours / theirs for ours, theirs in zip(row['values']['plugin'], row['values']['mmdet'], strict=True)]
    assert by_round and row['ratio']['mmdet'] == pytest.approx(median(by_round))
    assert found['machine']['torch'] == version('torch')
    wrong = run('--rows', 'losses')
    assert wrong.returncode == 2 and 'unknown rows losses; there are loss, loss-large, inference' in wrong.stderr
    wrong = run('--rows', 'loss', '--official', tmp_path)
    assert wrong.returncode == 1 and 'is no checkout of https://github.com/facebookresearch/detr' in wrong.stderr
