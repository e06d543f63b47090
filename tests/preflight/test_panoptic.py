"""Panoptic data: the boxes of its segments are checked, its heads counted with and without stuff."""

from mmdet_detr_plugin.preflight import findings
from mmdet_detr_plugin.preflight.finding import ERROR

from .planting import config, edit, find_in_data, saying

FPN = 'shapes/panoptic-fpn_r18-half_fpn_1xb4-10e_shapes-panoptic.py'
DETR = 'shapes/panoptic-detr-aided_r18-half_1xb4-10e_shapes-panoptic.py'


def test_faults_of_segments_are_found(root):
    def flatten_box(content):
        segment = content['annotations'][0]['segments_info'][0]
        segment['bbox'][2] = 0

    edit(root, 'panoptic_train', flatten_box)
    assert saying(findings(config(root, DETR)), 'train', 'width')


def test_missing_pngs_of_segments_are_found(root):
    cfg = config(root, DETR)
    (first, *_) = sorted((root / 'annotations' / 'panoptic_train').iterdir())
    first.unlink()
    assert first.name in find_in_data(cfg, ERROR, 'train: 1 of 16 PNGs of segments').finding
    for file in (root / 'annotations' / 'panoptic_test').iterdir():
        file.unlink()
    found = find_in_data(cfg, ERROR, 'val_evaluator: 8 of 8 PNGs of segments are missing')
    assert 'set val_evaluator.seg_prefix (the folder ' in found.advice and 'is there' in found.advice


def test_heads_are_counted_with_and_without_stuff(root):
    found = find_in_data(config(root, DETR, model__bbox_head__num_classes=4), ERROR, 'model.bbox_head.num_classes is 4, the data has 7')
    assert 'labels from 4 to 6' in found.finding
    found = find_in_data(config(root, FPN, model__roi_head__bbox_head__num_classes=7), ERROR, 'num_classes is 7, the data has 4 classes')
    assert '3 outputs have no class' in found.finding


def test_a_detection_data_set_still_refuses_panoptic_files(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.ann_file = 'annotations/panoptic_train.json'
    find_in_data(cfg, ERROR, 'holds panoptic segments, not boxes')


def test_another_file_for_the_evaluation_is_an_error_unless_the_loaders_is_among_them(root):
    cfg = config(root, DETR)
    assert not [found for found in findings(cfg) if found.severity == ERROR]
    cfg.test_evaluator[0].ann_file = f'{root}/annotations/panoptic_train.json'
    find_in_data(cfg, ERROR, '2 files for 1 evaluation')
