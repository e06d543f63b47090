"""What a comparison reads out of models: mmdet's own detections, every decoder layer, the matching, with and without NMS."""

import copy
import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_detr_plugin.boxes import cxcywh_to_xyxy
from mmdet_detr_plugin.comparison.evaluate import evaluate, look_into, nms_iou, same_box_pairs, without_nms
from mmdet_detr_plugin.comparison.inference import Truth, detections, has_layers, layer_outputs, matched_queries, ordered_loader
from mmdet_detr_plugin.engine.matching_record_hook import FILE, matching_changes
from mmdet_detr_plugin.prediction.trained_model import load_model

from ..conftest import ROOT

NAMES = dict(detr='detr_r18-half', local='local-detr_r18-half', faster_rcnn='faster-rcnn_r18-half_fpn')


def load(name: str, shapes_dir) -> Config:
    cfg = Config.fromfile(ROOT / f'configs/shapes/{NAMES[name]}_1xb4-10e_shapes.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes_dir}/'
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = f'{shapes_dir}/annotations/test.json'
    cfg.test_dataloader.dataset.pipeline[2] = dict(type='Resize', scale=(96, 96), keep_ratio=True)  # boxes must come back in file pixels
    return cfg


@pytest.fixture
def parts(request, shapes_dir):
    """Model with random weights, loader, truth."""
    cfg = load(request.param, shapes_dir)
    torch.manual_seed(0)
    model = load_model(cfg, None, 'cpu')
    loader = ordered_loader(cfg.test_dataloader, 1)
    return model, loader, Truth(cfg.test_evaluator.ann_file, loader.dataset.metainfo['classes'])


def test_objects_of_images_whose_ids_are_texts(tmp_path):
    """pycocotools takes a text for a list of ids, one for each letter."""
    box = dict(id=1, image_id='ab', category_id=1, bbox=[1, 2, 3, 4], area=12, iscrowd=0)
    images = [dict(id=name, file_name=f'{name}.png', width=9, height=9) for name in ('ab', 'a')]
    path = tmp_path / 'texts.json'
    path.write_text(json.dumps(dict(images=images, annotations=[box], categories=[dict(id=1, name='x')])))
    truth = Truth(path, ('x',))
    assert truth.instances('ab').bboxes.tolist() == [[1, 2, 4, 6]] and len(truth.instances('a').bboxes) == 0


@pytest.mark.parametrize('parts', NAMES, indirect=True)
def test_detections_are_those_of_mmdets_metric(parts, tmp_path, shapes_dir):
    model, loader, truth = parts
    ours, padding = detections(model, loader, truth)
    metric = CocoMetric(ann_file=f'{shapes_dir}/annotations/test.json', format_only=True, outfile_prefix=str(tmp_path / 'theirs'))
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    metric.evaluate(len(loader.dataset))
    theirs = json.loads((tmp_path / 'theirs.bbox.json').read_text())
    assert len(ours) == len(theirs) > 0 and 0.0 <= padding < 1.0

    def rows(results):
        return np.array(sorted([item['image_id'], item['category_id'], item['score'], *item['bbox']] for item in results))

    np.testing.assert_allclose(rows(ours), rows(theirs), atol=1e-3)


@pytest.mark.parametrize('parts', ['detr', 'local'], indirect=True)
def test_last_layer_is_the_models_output(parts):
    model, loader, truth = parts
    by_layer, health = look_into(model, loader, truth)
    whole, _ = detections(model, loader, truth)
    assert len(by_layer) == 3 and by_layer[-1] == whole and by_layer[0] != whole
    assert health['queries'] == (100 if model.bbox_head.num_classes and hasattr(model.neck, 'queries') else 50)


@pytest.mark.parametrize('parts', ['detr'], indirect=True)
def test_matched_queries_equal_mmdets_assigner_on_boxes_of_the_file(parts):
    """The images are resized for the network, the truth is in the file's pixels."""
    model, loader, truth = parts
    assigner = HungarianAssigner(
        [
            dict(type='ClassificationCost', weight=1.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', weight=2.0),
        ]
    )
    number = 0
    for samples, logits, boxes in layer_outputs(model, loader):
        (matched,) = matched_queries(model, samples, logits, boxes, truth)
        objects = truth.instances(samples[0].img_id)
        assert samples[0].img_shape != samples[0].ori_shape
        scale = torch.tensor([*samples[0].ori_shape[::-1]] * 2)
        for layer in range(len(logits)):
            predicted = InstanceData(scores=logits[layer, 0], bboxes=cxcywh_to_xyxy(boxes[layer, 0]) * scale)
            found = assigner.assign(predicted, objects, dict(img_shape=samples[0].ori_shape)).gt_inds
            assert [int((found == index + 1).nonzero()) for index in range(len(objects))] == matched[layer].tolist()
            number += len(objects)
    assert number > 10


def test_only_set_detectors_have_layers(shapes_dir):
    assert not has_layers(load_model(load('faster_rcnn', shapes_dir), None, 'cpu'))
    assert has_layers(load_model(load('local', shapes_dir), None, 'cpu'))


def test_last_nms_is_found_and_taken_away(shapes_dir):
    faster_rcnn, detr = load('faster_rcnn', shapes_dir), load('detr', shapes_dir)
    before = copy.deepcopy(faster_rcnn.model.test_cfg.to_dict())
    assert (nms_iou(faster_rcnn), nms_iou(detr)) == (0.5, None)
    changed = without_nms(faster_rcnn)
    assert changed.model.test_cfg.rcnn.nms == dict(type='nms', iou_threshold=1.0)
    assert changed.model.test_cfg.rpn.nms.iou_threshold == before['rpn']['nms']['iou_threshold']
    assert faster_rcnn.model.test_cfg.to_dict() == before
    assert nms_iou(Config(dict(model=dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=0.6)))))) == 0.6


def test_pairs_of_equal_boxes_are_counted():
    boxes = torch.tensor(
        [[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.19], [0.8, 0.5, 0.2, 0.2]], [[0.5, 0.5, 0.1, 0.1]] * 4]
    )
    assert same_box_pairs(boxes) == 3 + 6  # 0.19 / 0.2 = 0.95


def test_evaluation_writes_everything_once_it_is_complete(shapes_dir, tmp_path):
    cfg = load('faster_rcnn', shapes_dir)
    model = load_model(cfg, None, 'cpu')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    evaluate(cfg, tmp_path / 'run', tmp_path / 'weights.pth', 'cpu')
    facts = json.loads((tmp_path / 'run/evaluation.json').read_text())
    assert facts['nms_iou'] == 0.5 and facts['padding'] == dict(batch_size=8, padded_pixels=0.0) and facts['layers'] == 0
    assert facts['categories'] == [item['id'] for item in json.loads((shapes_dir / 'annotations/test.json').read_text())['categories']]
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / 'run/detections').iterdir()}
    assert set(found) == {'single', 'padded', 'unsuppressed'}
    with pytest.raises(ValueError, match='weights.pth does not fit the model of .*local-detr'):
        evaluate(load('local', shapes_dir), tmp_path / 'other', tmp_path / 'weights.pth', 'cpu')


def trained(cfg: Config, work_dir) -> dict:
    cfg.work_dir, cfg.log_level = str(work_dir), 'WARNING'
    cfg.train_cfg.update(max_epochs=2, val_interval=10)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model.state_dict()


def test_recording_the_matching_changes_no_weight(shapes_dir, tmp_path):
    plain, recorded = load('detr', shapes_dir), load('detr', shapes_dir)
    recorded.custom_hooks.append(dict(type='mmdet_detr_plugin.MatchingRecordHook', num_images=4))
    expected, found = trained(plain, tmp_path / 'plain'), trained(recorded, tmp_path / 'recorded')
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    lines = [json.loads(line) for line in (tmp_path / 'recorded' / FILE).read_text().splitlines()]
    objects = json.loads((shapes_dir / 'annotations/test.json').read_text())
    first = {image['id'] for image in objects['images'][:4]}
    assert [line['epoch'] for line in lines] == [1, 2]
    assert len(lines[0]['queries']) == sum(item['image_id'] in first for item in objects['annotations'])
    assert matching_changes(tmp_path / 'plain') == []


def test_changes_of_the_matching_are_shares_of_the_objects(tmp_path):
    records = [dict(epoch=1, queries=[1, 2, 3, 4]), dict(epoch=2, queries=[1, 2, 3, 9]), dict(epoch=3, queries=[5, 6, 3, 9])]
    lines = [json.dumps(record) for record in (records[0], dict(epoch=2, queries=[0, 0, 0, 0]), records[1], records[2])]
    (tmp_path / FILE).write_text('\n'.join(lines) + '\n{"epoch": 4, "que')  # epoch 2 again after resuming; then killed while writing
    assert matching_changes(tmp_path) == [dict(epoch=2, share=0.25), dict(epoch=3, share=0.5)]
