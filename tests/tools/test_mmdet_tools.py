"""mmdet's unmodified command lines and inference classes, on checkpoints that training wrote; for DETR and for Faster R-CNN."""

import subprocess
import sys
import tempfile
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector

from ..conftest import ROOT

MMDET_TOOLS = Path(mmdet.__path__[0]) / '.mim' / 'tools'
CONFIGS = {
    'detr': 'configs/shapes/detr_r18-half_1xb4-10e_shapes.py',
    'faster-rcnn': 'configs/shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py',
}
# Faster R-CNN has no code of its own in what takes long
MODELS = ['detr', pytest.param('faster-rcnn', marks=pytest.mark.slow)]


def mmdet_tool(name: str, *args) -> str:
    """Run one of mmdet's tools outside of the checkout and return all it printed."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', MMDET_TOOLS / name, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=tempfile.gettempdir(),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope='module', params=list(CONFIGS))
def trained(request, shapes_dir, tmp_path_factory):
    """Config and work directory of one epoch on 16 images."""
    folder = tmp_path_factory.mktemp(request.param)
    config, work = folder / f'{request.param}.py', folder / 'run'
    config.write_text(f"""_base_ = {str(ROOT / CONFIGS[request.param])!r}
data_root = {str(shapes_dir) + '/'!r}
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/test.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=1)
""")
    output = mmdet_tool('train.py', config, '--work-dir', work)
    assert 'coco/bbox_mAP' in output
    return config, work


def test_checkpoint_loads_safely_without_the_plugin(trained):
    code = f"""import sys, torch
checkpoint = torch.load({str(trained[1] / 'epoch_1.pth')!r}, weights_only=True)
assert not any(name.startswith(("mmdet", "mmengine")) for name in sys.modules)
print(sorted(checkpoint), len(checkpoint["message_hub"]["log_scalars"]))"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'message_hub', 'meta', 'optimizer', 'param_schedulers', 'state_dict'" in done.stdout


def test_test_tool_reads_the_checkpoint(trained):
    config, work = trained
    output = mmdet_tool(
        'test.py',
        config,
        work / 'epoch_1.pth',
        '--work-dir',
        work / 'test',
        '--cfg-options',
        f'test_evaluator.outfile_prefix={work / "test" / "detections"}',
    )
    assert 'coco/bbox_mAP' in output and 'load checkpoint' in output.lower()
    assert (work / 'test' / 'detections.bbox.json').is_file()


def test_training_resumes_with_its_history(trained):
    config, work = trained
    output = mmdet_tool('train.py', config, '--work-dir', work, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1, iter: 4' in output and 'Epoch(train) [1]' not in output
    assert 'just skip resuming' not in output  # mmengine's words for a history that it lost
    first, second = (torch.load(work / f'epoch_{epoch}.pth', weights_only=True) for epoch in (1, 2))
    history = [checkpoint['message_hub']['log_scalars']['train/loss']['log_history'] for checkpoint in (first, second)]
    assert len(history[0]) == 4 and len(history[1]) == 8 and torch.equal(history[1][:4], history[0])
    assert first['meta']['epoch'] == 1 and second['meta']['epoch'] == 2 and second['meta']['iter'] == 8


def test_init_detector_and_inferencer_read_the_checkpoint(trained, shapes_dir):
    config, work = trained
    image = str(shapes_dir / 'test' / '000001.png')
    model = init_detector(str(config), str(work / 'epoch_1.pth'), device='cpu')
    assert model.dataset_meta['classes'] == ('circle', 'square', 'triangle', 'star')
    predicted = inference_detector(model, image).pred_instances
    inferencer = DetInferencer(str(config), str(work / 'epoch_1.pth'), device='cpu', show_progress=False)
    result = inferencer(image, return_vis=True, pred_score_thr=0.0)
    assert result['visualization'][0].shape == (128, 128, 3)
    np.testing.assert_allclose(result['predictions'][0]['scores'], predicted.scores, atol=1e-5)
    np.testing.assert_allclose(np.array(result['predictions'][0]['bboxes']).reshape(-1, 4), predicted.bboxes, atol=1e-2)
    if config.stem == 'detr':
        assert len(predicted) == 100  # all queries


def test_wrong_class_count_stops_before_training(trained, tmp_path):
    config, _ = trained
    key = 'model.bbox_head.num_classes' if config.stem == 'detr' else 'model.roi_head.bbox_head.num_classes'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', MMDET_TOOLS / 'train.py', config, '--work-dir', tmp_path, '--cfg-options', f'{key}=7'],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and 'num_classes` (7)' in done.stderr and 'classes` 4' in done.stderr
