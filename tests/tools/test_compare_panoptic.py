"""The comparison of panoptic models, from the command to the report."""

import json
import sys

import pytest

from mmdet_detr_plugin.datasets.shapes import write_split

from ..conftest import ROOT
from .processes import running

PANOPTIC = ('panoptic-detr-aided_r18-half_1xb4-10e_shapes-panoptic', 'panoptic-fpn_r18-half_fpn_1xb4-10e_shapes-panoptic')


@pytest.mark.slow
def test_panoptic_models_are_compared(tmp_path):
    """About a minute; the figures are those of training's own evaluation."""
    for split, count in (('train', 16), ('test', 8)):
        write_split(tmp_path / 'data/shapes', seed=0, split=split, count=count)
    command = [sys.executable, '-W', 'ignore', ROOT / 'tools/compare.py', *PANOPTIC, '--epochs', 3, '--work-dir', tmp_path / 'work']
    with running(command, tmp_path, tmp_path / 'output.txt') as started:
        output = started.finish()
    assert 'fair: only what may differ differs' in output and 'FAILED' not in output
    results = json.loads((tmp_path / 'work/results.json').read_text())
    assert results['complete'] and len(results['models']) == 2
    assert results['data']['splits']['train']['objects'] > 16 * 2  # stuff counts
    for name, model in zip(PANOPTIC, results['models'], strict=True):
        lines = (tmp_path / 'work/runs' / name / 'seed0/training').glob('*/vis_data/scalars.json')
        logged = json.loads(next(lines).read_text().splitlines()[-1])
        for figure in ('PQ', 'SQ', 'RQ', 'PQ_th', 'PQ_st'):
            assert model['panoptic'][figure]['mean'] == pytest.approx(logged[f'coco_panoptic/{figure}'], abs=0.01)
        assert model['runs'][0]['metrics']['AP'] == pytest.approx(logged['coco/bbox_mAP'], abs=5.1e-4)
    report = (tmp_path / 'work/report.md').read_text()
    assert '| Model | PQ | SQ | RQ | PQ things |' in report
