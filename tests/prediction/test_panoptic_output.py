"""Masks and segments of a prediction as files, by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from pycocotools import mask as coco_mask

from mmdet_detr_plugin.config_files import config_path
from mmdet_detr_plugin.datasets.panoptic.annotation_checks import check_panoptic_content
from mmdet_detr_plugin.datasets.panoptic.segment_ids import decode_png
from mmdet_detr_plugin.prediction.inputs import Frame
from mmdet_detr_plugin.prediction.writers import PredictionWriter

CLASSES = ('cat', 'dog', 'sky')  # sky is stuff; 3 = nothing
MAP = np.array([[1001, 1001, 2001, 2], [1001, 3, 3, 2]])


def sample() -> DetDataSample:
    found = DetDataSample()
    masks = torch.from_numpy(np.stack((MAP == 1001, MAP == 2001)))
    boxes = torch.tensor([[0.0, 0, 2, 2], [2, 0, 3, 1]])
    found.pred_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 1]), scores=torch.tensor([0.9, 0.8]), masks=masks)
    found.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(MAP)[None].int())
    return found


def test_masks_and_segments_are_written(tmp_path):
    writer = PredictionWriter(tmp_path, CLASSES, 0.5, num_things_classes=2)
    for source, number in (('photo.jpg', None), ('film.mp4', 7)):
        writer.add(Frame(source, Path(source), number, np.zeros((2, 4, 3), np.uint8)), sample())
    assert [path.name for path in writer.finish()] == ['predictions.json', 'predictions.csv', 'predictions.panoptic.json']
    first, second, *_ = json.loads((tmp_path / 'predictions.json').read_text())['annotations']
    assert (coco_mask.decode(first['segmentation']) == (MAP == 1001)).all() and first['area'] == 3
    assert (coco_mask.decode(second['segmentation']) == (MAP == 2001)).all() and second['area'] == 1
    content = json.loads((tmp_path / 'predictions.panoptic.json').read_text())
    assert [(item['name'], item['isthing']) for item in content['categories']] == [('cat', 1), ('dog', 1), ('sky', 0)]
    assert len(content['images']) == 2 and 'isthing' not in json.loads((tmp_path / 'predictions.json').read_text())['categories'][2]
    check_panoptic_content(content | dict(annotations=[]))
    assert [item['file_name'] for item in content['annotations']] == ['000001-photo.png', '000002-film-000007.png']
    for item in content['annotations']:
        ids = decode_png((tmp_path / 'predictions.panoptic' / item['file_name']).read_bytes())
        found = {info['category_id']: (ids == info['id']) for info in item['segments_info'] if info['category_id'] == 3}
        assert (found[3] == (MAP == 2)).all() and (ids[MAP == 3] == 0).all()
        assert sorted((info['category_id'], info['area']) for info in item['segments_info']) == [(2, 1), (2, 3), (3, 2)]
    assert (tmp_path / 'drawn').is_dir()


def test_an_image_without_a_segment_is_drawn_as_it_is(tmp_path):
    writer = PredictionWriter(tmp_path, CLASSES, 0.5)
    empty = sample()
    empty.pred_instances = empty.pred_instances[:0]
    empty.pred_panoptic_seg = PixelData(sem_seg=torch.full((1, 2, 4), len(CLASSES), dtype=torch.int32))
    pixels = np.full((2, 4, 3), 99, np.uint8)
    writer.add(Frame('photo.jpg', Path('photo.jpg'), None, pixels), empty)
    writer.finish()
    assert np.abs(cv2.imread(str(tmp_path / 'drawn' / 'photo.jpg')).astype(int) - pixels).max() <= 2
    content = json.loads((tmp_path / 'predictions.panoptic.json').read_text())
    assert [item['segments_info'] for item in content['annotations']] == [[]]
    visualizer = VISUALIZERS.build(dict(Config.fromfile(config_path('detr_r50_8xb2-150e_coco')).visualizer, name='void'))
    visualizer.dataset_meta = dict(classes=CLASSES, palette='random')  # of mmdet's tools/test.py --show-dir
    visualizer.add_datasample('photo', pixels, empty, draw_gt=False, show=False)
    assert (visualizer.get_image() == pixels).all()


def test_models_without_segments_leave_no_panoptic_files(tmp_path):
    writer = PredictionWriter(tmp_path, CLASSES, 0.5, draw=False)
    plain = sample()
    del plain.pred_panoptic_seg, plain.pred_instances.masks
    writer.add(Frame('photo.jpg', Path('photo.jpg'), None, np.zeros((2, 4, 3), np.uint8)), plain)
    assert [path.name for path in writer.finish()] == ['predictions.json', 'predictions.csv']
    assert 'segmentation' not in json.loads((tmp_path / 'predictions.json').read_text())['annotations'][0]
