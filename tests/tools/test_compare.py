"""The comparison as users start it: one command from a folder to a report, interrupted and continued, and refused when it is not fair."""

import json
import random
import re
import runpy
import sys
import time
from pathlib import Path

import pytest

from mmdet_detr_plugin.comparison.run_records import last_scalars

from ..conftest import ROOT
from .processes import running

LOCAL, FASTER_RCNN = 'local-detr_r18-half_1xb2-12e_coco320', 'faster-rcnn_r18-half_fpn_1xb2-12e_coco320'
VARYING = {'created', 'latency', 'training_seconds', 'seconds_per_epoch', 'peak_memory_mib', 'hours', 'commands', 'config', 'preflight'}


def command(folder: Path, *args) -> list:
    return [sys.executable, '-W', 'ignore', ROOT / 'tools/compare.py', *args, '--work-dir', folder / 'work']


def compare(folder: Path, *args, success: bool = True) -> str:
    with running(command(folder, *args), folder, folder / 'output.txt') as started:
        return started.finish(success)


def results_of(folder: Path) -> dict:
    return json.loads((folder / 'work/results.json').read_text())


def comparable(value):
    """Without what another run of the same comparison measures anew."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if key not in VARYING}
    return [comparable(inner) for inner in value] if isinstance(value, list) else value


def test_one_command_makes_a_report_and_repeats_nothing(shapes_dir, tmp_path):
    args = (LOCAL, FASTER_RCNN, '--data', shapes_dir, '--epochs', 1)
    output = compare(tmp_path, *args)
    assert 'fair: only what may differ differs' in output and 'FAILED' not in output
    results = results_of(tmp_path)
    assert results['complete'] and not results['allowed_unfair']
    assert {name: split['images'] for name, split in results['data']['splits'].items()} == dict(train=16, val=8)
    assert [model['name'] for model in results['models']] == ['local-detr_r18-half', 'faster-rcnn_r18-half_fpn']
    for name, model in zip((LOCAL, FASTER_RCNN), results['models']):
        run = tmp_path / 'work/runs' / name / 'seed0'
        logged = last_scalars(run / 'training')
        for metric, key in (('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75')):
            assert model['runs'][0]['metrics'][metric] == pytest.approx(logged[f'coco/bbox_{key}'], abs=5.1e-4)
        assert model['parameters'] > 1e6 and model['giga_multiply_adds'] > 0.1 and model['latency']['p50_ms'] > 0
        assert model['runs'][0]['peak_memory_mib'] > 100 and model['runs'][0]['training_seconds'] > 0
    assert [model['nms']['has_nms'] for model in results['models']] == [False, True]
    assert len(results['models'][0]['layers']) == 3
    assert results['pairs'][0]['resamples'] == 2000
    page, text = ((tmp_path / f'work/report.{kind}').read_text() for kind in ('html', 'md'))
    assert 'local-detr_r18-half' in page and '| local-detr_r18-half |' in text
    assert all(item['verdict'] != 'unfair' for item in results['audit'])
    assert 'delivered samples' in {item['item'] for item in results['audit'] if item['verdict'] == 'equal'}

    logs = {path: path.read_bytes() for path in (tmp_path / 'work/runs').rglob('log.txt')}
    compare(tmp_path, *args)
    assert {path: path.read_bytes() for path in (tmp_path / 'work/runs').rglob('log.txt')} == logs and len(logs) == 2
    assert comparable(results_of(tmp_path)) == comparable(results)


def test_unfair_conditions_train_nothing(shapes_dir, tmp_path):
    (tmp_path / 'unfair.py').write_text(
        f"_base_ = {str(ROOT / 'configs/small' / FASTER_RCNN)!r} + '.py'\ntrain_dataloader = dict(batch_size=1)\n"
    )
    output = compare(tmp_path, LOCAL, 'unfair.py', '--data', shapes_dir, success=False)
    assert 'DIFFERS, AND MUST NOT: batch size' in output
    assert 'nothing was trained: the conditions are not fair. Mend it, or go on with --allow' in output
    assert not (tmp_path / 'work/runs').exists()


def test_wrong_arguments_are_named(shapes_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def refusal(*args) -> str:  # in this process, which imports mmdet once
        monkeypatch.setattr(sys, 'argv', ['compare.py', *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / 'tools/compare.py'), run_name='__main__')
        assert stopped.value.code != 0
        return f'{stopped.value.code} {capsys.readouterr().err}'

    assert 'has no config' in refusal('no-such-config', FASTER_RCNN)
    assert 'at least two configs' in refusal(LOCAL, '--data', shapes_dir)
    assert 'no layout known here' in refusal(LOCAL, FASTER_RCNN, '--data', ROOT / 'tools')
    assert '--seeds must differ' in refusal(LOCAL, FASTER_RCNN, '--seeds', 0, 0)


def test_audit_command_compares_settings_and_pixels(shapes_dir, tmp_path):
    program = [sys.executable, '-W', 'ignore', ROOT / 'tools/audit.py']
    with running([*program, LOCAL, FASTER_RCNN, '--data', shapes_dir, '--batches', 2], tmp_path, tmp_path / 'fair.txt') as fair:
        assert 'delivered samples' in fair.finish().split('\n\n')[0]
    unequal = [*program, 'detr_r50_8xb2-150e_coco', 'faster-rcnn_r50_fpn_8xb2-1x_coco', '--batches', 0]
    with running(unequal, tmp_path, tmp_path / 'unfair.txt') as unfair:
        assert 'unfair: schedule shape with warm-up, evaluation, epochs or iterations' in unfair.finish(success=False)


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_numbers_of_a_straight_run(shapes_dir, tmp_path):
    """``kill -9`` to the command, at random moments of trainings and evaluations. About five minutes."""
    args = (LOCAL, FASTER_RCNN, '--data', shapes_dir, '--epochs', 3, '--seeds', 0, 1)
    for name in ('straight', 'killed'):
        (tmp_path / name).mkdir()
    compare(tmp_path / 'straight', *args)
    for number, share in enumerate(sorted(random.uniform(0.1, 0.9) for _ in range(3))):
        with running(command(tmp_path / 'killed', *args), tmp_path / 'killed', tmp_path / 'killed' / f'output{number}.txt') as started:
            runs = tmp_path / 'killed/work/runs'
            started.wait_for(lambda share=share, runs=runs: trained_share(runs) >= share)
            time.sleep(random.uniform(0, 5))
            print(f'killed at {trained_share(runs):.0%} of all trainings')
            started.kill()
    compare(tmp_path / 'killed', *args)
    straight, killed = (results_of(tmp_path / name) for name in ('straight', 'killed'))
    assert killed['complete'] and comparable(killed['models']) == comparable(straight['models'])
    assert killed['pairs'] == straight['pairs']


def trained_share(runs: Path) -> float:
    """Epochs that were saved, of two models, two seeds and three epochs."""
    pointers = [path.read_text() for path in runs.glob('*/*/training/last_checkpoint')]
    return sum(int(re.search(r'epoch_(\d+)', text)[1]) for text in pointers) / 12
