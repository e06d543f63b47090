"""What can be exported, what is refused and why, and the command lines."""

import copy
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from mmdet_detr_plugin.config_files import config_names, read_config
from mmdet_detr_plugin.deployment.check import check, images_to_compare
from mmdet_detr_plugin.deployment.export import describe, export_onnx
from mmdet_detr_plugin.deployment.exportable import ExportableDetector
from mmdet_detr_plugin.prediction.predictor import Predictor
from mmdet_detr_plugin.prediction.trained_model import load_model

from ..builders import build, detr_config, make_batch
from ..conftest import ROOT
from .conftest import CLASSES, DETECTORS, random_detector, write_config

NAME = 'post-norm R18 with reference points'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three images, a broken one, and annotations: what the detector itself finds in two of them."""
    out, generator = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for number, shape in enumerate([(60, 80), (90, 70), (50, 120)]):
        cv2.imwrite(str(out / f'{number}.png'), cv2.resize(generator.integers(0, 255, (5, 7, 3), dtype=np.uint8), shape[::-1]))
    (out / 'broken.png').write_text('no image')
    return out


def annotations_of(exported, folder) -> dict:
    from mmdet_detr_plugin.deployment import inference_detector

    annotations = []
    for number in range(2):
        found = inference_detector(exported.onnx, folder / f'{number}.png').pred_instances[:3]
        for box, label in zip(found.bboxes.tolist(), found.labels.tolist(), strict=True):
            x0, y0, x1, y1 = box
            entry = dict(id=len(annotations) + 1, image_id=number + 1, category_id=10 + label, bbox=[x0, y0, x1 - x0, y1 - y0], iscrowd=0)
            annotations.append({**entry, 'area': (x1 - x0) * (y1 - y0)})
    images = [dict(id=number + 1, file_name=f'{number}.png', height=1, width=1) for number in range(3)]
    categories = [dict(id=10 + label, name=name) for label, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def run(tool: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-W', 'ignore', ROOT / f'tools/{tool}.py', *map(str, arguments)], capture_output=True, text=True)


def test_check_finds_agreement_and_reports_what_it_left_out(export, folder):
    exported = export(NAME)
    annotations = annotations_of(exported, folder)
    files = [folder / name for name in ('0.png', '1.png', '2.png', 'broken.png')]
    predictor = Predictor(exported.cfg, exported.checkpoint, batch_size=4)
    found = check(predictor, exported.onnx, files, annotations, [1, 2, 3, 4])
    assert found.images == 3 and found.beyond(1e-4) == 0 and len(found.box_differences) == 2 * 3 * 10
    assert 0 < max(found.box_differences) < 1e-4 and found.pytorch == found.onnx and found.pytorch['AP'] > 0.5
    foreign = dict(annotations['annotations'][0], id=1000, category_id=99)  # a class that the model does not have
    more = annotations | dict(
        annotations=[*annotations['annotations'], foreign], categories=[*annotations['categories'], dict(id=99, name='x')]
    )
    assert check(predictor, exported.onnx, files[:3], more, [1, 2, 3]).pytorch == found.pytorch
    ((name, problem),) = found.problems
    assert name.endswith('broken.png') and problem.count('no image that OpenCV can read') == 2


def test_images_to_compare_are_the_configs_also_of_a_wrapped_data_set(folder, tmp_path):
    content = dict(images=[dict(id=7, file_name='b.png'), dict(id=3, file_name='a.png')], annotations=[], categories=[])
    (tmp_path / 'some.json').write_text(json.dumps(content))
    dataset = dict(type='StrictCocoDataset', data_root=f'{tmp_path}/', ann_file='some.json', data_prefix=dict(img='images/'))
    for wrapped in (dataset, dict(type='SeededDataset', dataset=dataset)):
        files, annotations, image_ids = images_to_compare(Config(dict(test_dataloader=dict(dataset=wrapped))))
        assert files == [tmp_path / 'images/b.png', tmp_path / 'images/a.png'] and image_ids == [7, 3] and annotations == content
    files, annotations, image_ids = images_to_compare(Config(), [folder], tmp_path / 'some.json')
    assert files == [folder / 'b.png', folder / 'a.png'] and image_ids == [7, 3] and annotations == content
    assert images_to_compare(Config(), [folder / '0.png']) == ([folder / '0.png'], None, [])


def test_check_command_fails_for_other_weights(export, folder, tmp_path):
    exported = export(NAME)
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps(annotations_of(exported, folder)))
    arguments = (exported.file, folder, '--annotations', annotations)
    done = run('check_onnx', exported.cfg.filename, exported.checkpoint, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '3 images, 60 detections of both' in done.stdout and 'detections that differ by more than 0.0001: 0' in done.stdout
    rows = re.findall(r'^(AP.*?) +PyTorch (\S+)  ONNX (\S+)$', done.stdout, re.MULTILINE)
    assert len(rows) == 6 and all(ours == theirs for _, ours, theirs in rows) and float(rows[0][1]) > 0.5
    weights = torch.load(exported.checkpoint)
    weights['state_dict']['bbox_head.fc_cls.bias'] += torch.arange(6) * 0.01
    torch.save(weights, tmp_path / 'other.pth')
    done = run('check_onnx', exported.cfg.filename, tmp_path / 'other.pth', exported.file, folder / '0.png')
    assert done.returncode == 1 and 'largest difference of a box: 0.0e+00' not in done.stdout and 'Traceback' not in done.stderr


def test_export_command_writes_a_file_and_names_what_is_wrong(export, tmp_path):
    exported = export(NAME)
    done = run('export_onnx', exported.cfg.filename, tmp_path / 'nothing.pth', tmp_path / 'out.onnx')
    assert done.returncode == 1 and 'nothing.pth does not exist' in done.stderr and 'Traceback' not in done.stderr
    done = run('export_onnx', exported.cfg.filename, exported.checkpoint, tmp_path / 'out.bin')
    assert done.returncode == 2 and 'must end in .onnx' in done.stderr
    assert not list(tmp_path.iterdir())


def test_aids_and_gradients_stay_behind():
    config = detr_config(neck=dict(in_channels=128), backbone=dict(base_channels=16, stem_channels=16))
    config['training_aids'] = dict(groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2))
    detector = build(config).eval()
    exportable = ExportableDetector(detector)
    names = [name.removeprefix('detector.') for name, _ in exportable.named_parameters()]
    assert len(detector.training_aids) == 1 and names == [name for name, _ in detector.named_parameters() if 'training_aids' not in name]
    assert not any(parameter.requires_grad for parameter in exportable.parameters())
    assert all(parameter.requires_grad for parameter in detector.neck.parameters())  # the original is untouched


def test_half_keeps_head_and_positions_in_float32():
    exportable = ExportableDetector(random_detector(DETECTORS['pre-norm R50-DC5 with learned positions']), half=True)
    kinds = {name: parameter.dtype for name, parameter in exportable.detector.named_parameters()}
    assert kinds['bbox_head.fc_cls.weight'] == torch.float32 and kinds['neck.input_proj.weight'] == torch.float16


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(type='RandomFlip', prob=0.5), "the test pipeline has the step .*'RandomFlip'.* an exported file knows"),
        (dict(type='Resize', scale=(10, 20)), 'the test pipeline has the step'),  # a second one
        (dict(type='Pad', size_divisor=32), "the test pipeline has the step .*'Pad'"),
        (dict(type='LoadImageFromFile', color_type='grayscale'), 'grayscale'),
    ],
)
def test_other_pipelines_are_refused(change, message, export):
    exported = export(NAME)
    cfg = copy.deepcopy(exported.cfg)
    cfg.test_dataloader.dataset.pipeline.insert(2, change)
    with pytest.raises(ValueError, match=message):
        describe(cfg, exported.detector)


def test_pipeline_is_that_of_the_data_sets_inside_their_wrappers(tmp_path):
    cfg, detector = write_config(DETECTORS[NAME], tmp_path / 'config.py'), random_detector(DETECTORS[NAME])
    dataset = cfg.test_dataloader.dataset
    wanted = describe(cfg, detector).preprocess
    seeded = dict(type='SeededDataset', dataset=dataset)
    for wrapped in (seeded, dict(type='ConcatDataset', datasets=[dataset, seeded])):
        cfg.test_dataloader = dict(dataset=wrapped)
        assert describe(cfg, detector).preprocess == wanted and wanted['resize'] is not None
    other = copy.deepcopy(dataset)
    other.pipeline[1].scale = (10, 20)
    cfg.test_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[dataset, other]))
    with pytest.raises(ValueError, match='the 2 test data sets have different pipelines; expected one for all'):
        describe(cfg, detector)
    for loader in (None, dict(dataset=dict(type='CocoDataset')), dict(dataset=dict(pipeline=dataset.pipeline[1:]))):
        cfg.test_dataloader = loader
        with pytest.raises(ValueError, match='test_dataloader.dataset.pipeline must start with LoadImageFromFile, got'):
            describe(cfg, detector)


def test_loading_in_float32_is_refused_where_resizing_would_differ(tmp_path):
    cfg, detector = write_config(DETECTORS[NAME], tmp_path / 'config.py'), random_detector(DETECTORS[NAME])
    steps = cfg.test_dataloader.dataset.pipeline
    steps[0].update(color_type='color', imdecode_backend='cv2', to_float32=False)
    assert describe(cfg, detector).preprocess['resize'] is not None
    steps[0].to_float32 = True
    with pytest.raises(ValueError, match='would resize in float32; an exported file resizes whole numbers'):
        describe(cfg, detector)
    del steps[1]
    assert describe(cfg, detector).preprocess['resize'] is None
    steps[0].imdecode_backend = 'pillow'
    with pytest.raises(ValueError, match="imdecode_backend='cv2', and the test pipeline has 'color' and 'pillow'"):
        describe(cfg, detector)


OWN = [name for name in config_names() if name.startswith(('shapes/', 'small/')) and 'fpn' not in name]  # those are no DETRs


@pytest.mark.parametrize('name', OWN)
def test_shipped_small_configs_can_be_described(name):
    cfg = read_config(Path(name))
    detector = load_model(cfg, None, 'cpu')
    detector.dataset_meta.setdefault('classes', [str(label) for label in range(detector.bbox_head.num_classes)])  # as a checkpoint names
    found = describe(cfg, detector)
    assert found.preprocess['resize'] == (None if name.startswith('shapes/') else dict(scale=[320, 240], keep_ratio=True))


@pytest.mark.parametrize('settings', [dict(scale_factor=1.0, keep_ratio=True), dict(scale_factor=(1.0, 1.0))])
def test_resizing_by_one_is_none(settings, tmp_path):
    step = dict(type='Resize', **settings)
    pixels = np.random.default_rng(0).integers(0, 255, (31, 47, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Compose([step])(dict(img=pixels))['img'], pixels)
    cfg, detector = write_config(DETECTORS[NAME], tmp_path / 'config.py'), random_detector(DETECTORS[NAME])
    cfg.test_dataloader.dataset.pipeline[1] = step
    assert describe(cfg, detector).preprocess['resize'] is None
    for other in (dict(scale_factor=0.5), dict(scale_factor=(1.0, 2.0)), dict(scale_factor=1.0, scale=(10, 20))):
        cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', **other)
        with pytest.raises(ValueError, match='the test pipeline has the step .*scale_factor'):
            describe(cfg, detector)


def test_other_detectors_are_refused(export, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py')
    faster_rcnn = load_model(cfg, None, 'cpu')
    message = "only the plugin's DETR, with its own DETRHead, and LocalDETR can be exported, got FasterRCNN"
    for refusing in (ExportableDetector, partial(describe, cfg)):  # the command line describes first
        with pytest.raises(ValueError, match=message):
            refusing(faster_rcnn)
    with pytest.raises(ValueError, match='training mode; call detector.eval'):
        ExportableDetector(build(detr_config()))
    detector = random_detector(DETECTORS[NAME])
    detector.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(ValueError, match=r'the model has 5 classes, but 2 names are known \(a, b'):
        export_onnx(export(NAME).cfg, detector, tmp_path / 'out.onnx')
    assert not list(tmp_path.iterdir())


def test_detect_equals_predict():
    """The tensor path against mmdet's, in pixels of the images as they were."""
    for name, config in DETECTORS.items():
        detector, batch = random_detector(config), make_batch([(64, 96), (90, 50)], [0, 0])
        sizes = torch.tensor([[64, 96], [90, 50]])
        with torch.no_grad():
            boxes, scores, labels, *_ = detector.detect(batch['batch_inputs'], sizes)
            samples = detector.predict(batch['batch_inputs'], batch['batch_data_samples'])
        for index, sample in enumerate(samples):
            order = scores[index].argsort(descending=True, stable=True)
            order = order[labels[index][order] < getattr(detector, 'num_things_classes', detector.bbox_head.num_classes)]
            torch.testing.assert_close(scores[index][order], sample.pred_instances.scores, msg=name)
            pixels = boxes[index][order] * torch.tensor(sample.ori_shape[::-1] * 2)
            torch.testing.assert_close(pixels, sample.pred_instances.bboxes, atol=1e-3, rtol=1e-5, msg=name)
