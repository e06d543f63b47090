"""Each fault of a data set, planted in a clean one: its severity, and the words and numbers that must be said."""

import json
import os
import re

import numpy as np
import pytest
from mmdet.registry import DATASETS

from mmdet_detr_plugin.preflight import ERROR, NOTE, WARNING, data_findings, read_data

from .planting import CLASSES, config, edit, find_in_data, first, saying


def set_box(*box):
    return lambda content: content['annotations'][2].update(bbox=list(box))


def without(key, name):
    return lambda content: [item.pop(name) for item in content[key][:3]]


def test_a_clean_data_set_gives_no_warning(root):
    findings = data_findings(config(root))
    assert [item for item in findings if item.severity != NOTE] == []


@pytest.mark.parametrize(
    'change, severity, words',
    [
        (set_box(5, 5, 0, 20), WARNING, ['train: 1 of', 'degenerate', '[5, 5, 0, 20]', 'annotation 3 of 00000', 'remove or correct']),
        (set_box(25, 5, -20, 20), WARNING, ['degenerate', 'zero or negative', '[25, 5, -20, 20]']),
        (set_box(5, 5, float('nan'), 20), ERROR, ['1 of', 'NaN', '[5, 5, nan, 20]']),
        (set_box(5, 5, float('inf'), 20), ERROR, ['1 of', 'infinity']),
        (set_box(5, 5, 0.5, 20), WARNING, ['thinner than 1 pixel', '0.5']),
        (set_box(200, 5, 20, 20), WARNING, ['outside of their image', '[200, 5, 20, 20]']),
        (set_box(100, 5, 40, 20), WARNING, ['beyond their image', '[100, 5, 40, 20]']),
        (set_box(5, 5, 6, 20), NOTE, ['1 of', 'less than 8 pixels']),
        (set_box(5, 5, 20), ERROR, ['1 of', 'no four numbers', '[5, 5, 20] of annotation 3']),
        (set_box(5, 5, 20, '7'), ERROR, ['1 of', 'no four numbers']),
        (first('annotations', area=0), WARNING, ['"area" of zero', 'annotation 1 of']),
        (first('annotations', category_id=77), ERROR, ['1 of', 'category_id', 'not among the categories: 77', '1, 2, 3, 4']),
        (first('annotations', image_id=999), WARNING, ['1 of', 'images that are not listed', 'image_id 999']),
        (first('annotations', id=2), ERROR, ['1 ids of annotations occur more than once: 2', 'number them anew']),
        (first('images', id=2), ERROR, ['1 ids of images occur more than once: 2']),
        (first('categories', id=2), ERROR, ['1 ids of categories occur more than once: 2']),
        (first('images', width=0), ERROR, ['1 of 16 image sizes', '0 x 128']),
        (without('annotations', 'area'), ERROR, ['3 of', 'annotations have no "area"', 'stops']),
        (without('images', 'file_name'), ERROR, ['3 of 16 images have no "file_name"']),
        (first('images', file_name='nothing.png'), ERROR, ['1 of 16 image files (6.2 %) are missing', 'nothing.png', 'data_prefix']),
        (first('images', file_name='000002.png'), WARNING, ['1 image files are listed more than once', '000002.png']),
        (first('images', width=100), ERROR, ['1 of 16 decoded images have another size', 'is 128 x 128, stated 100 x 128']),
        (first('categories', name='cirlce'), ERROR, ['1 of 4 classes', "'circle' is nearest to 'cirlce'", 'shift']),
        (lambda content: content['categories'].reverse(), ERROR, ['another order', "class 0 is 'circle' in the config, 'star' there"]),
        (lambda content: content['annotations'].clear(), ERROR, ['0 objects in 16 images']),
        (lambda content: content['images'].clear(), ERROR, ['lists 0 images']),
    ],
)
def test_a_planted_fault_is_named(root, change, severity, words):
    edit(root, 'train', change)
    find_in_data(config(root), severity, *words)


@pytest.mark.parametrize(
    'change, words',
    [
        (first('annotations', area='12'), "annotation 1 has the area '12'; expected the object's pixels"),
        (first('annotations', area=float('nan')), 'annotation 1 has the area nan'),
        (first('annotations', iscrowd=2), 'annotation 1 has iscrowd 2; expected 0 or 1'),
        (first('annotations', image_id=999), 'annotation 1 has image_id 999'),
        (set_box(25, 5, -20, 20), 'of negative size'),
        (set_box(0, 0, 2**25, 5), 'annotation 3 has the bbox [0, 0, 33554432, 5]'),
        (set_box(True, 5, 20, 20), 'annotation 3 has the bbox [True, 5, 20, 20]'),
        (lambda content: content['categories'].append(dict(id=9, name=None)), 'category 9 has the name None'),
    ],
)
def test_what_training_would_refuse_is_an_error(root, change, words):
    edit(root, 'train', change)
    cfg = config(root)
    find_in_data(cfg, ERROR, 'train.json: training and evaluation stop, as', words)
    with pytest.raises(ValueError, match=re.escape(words)):
        DATASETS.build(cfg.train_dataloader.dataset)
    cfg.train_dataloader.dataset.type = 'mmdet.CocoDataset'
    assert not saying(data_findings(cfg), 'training and evaluation stop')


def test_annotations_of_classes_that_the_config_does_not_name(root):
    counts = count_by_class(root)
    cfg = config(root)
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.metainfo = dict(classes=CLASSES[:3])
    find_in_data(cfg, WARNING, f'train: {counts["star"]} annotations are of 1 classes', "'star'", 'left out in silence')
    find_in_data(cfg, ERROR, 'num_classes is 4, the data has 3 classes', 'off by one', 'background')


def count_by_class(root) -> dict[str, int]:
    content = json.loads((root / 'annotations' / 'train.json').read_text())
    return {name: sum(item['category_id'] == number for item in content['annotations']) for number, name in enumerate(CLASSES, start=1)}


def test_no_class_of_the_config_is_in_the_file(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.metainfo = dict(classes=('raccoon',))
    find_in_data(cfg, ERROR, 'train: none of the 1 classes', "'circle'", 'make_config.py')
    find_in_data(cfg, ERROR, 'different classes', "train 1 ('raccoon')", 'val and test 4')


@pytest.mark.parametrize(
    'number, words',
    [
        (5, ['num_classes is 5, the data has 4', 'off by one', 'background']),
        (3, ['num_classes is 3, the data has 4', 'off by one', "labels of 'star' are out of range"]),
        (2, ['num_classes is 2', 'labels from 2 to 3 are out of range', 'set it to 4']),
        (80, ['num_classes is 80', '76 outputs have no class']),
    ],
)
def test_number_of_classes_of_the_head(root, number, words):
    find_in_data(config(root, model__bbox_head__num_classes=number), ERROR, 'model.bbox_head.num_classes', *words)


def test_too_many_outputs_only_warn_where_no_hook_refuses_them(root):
    find_in_data(config(root, model__bbox_head__num_classes=80, custom_hooks=[]), WARNING, '76 outputs have no class')


def test_classes_of_a_proposal_network_and_a_backbone_are_their_own(root):
    cfg = config(
        root, 'shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py', model__rpn_head__num_classes=1, model__backbone__num_classes=1000
    )
    assert not saying(data_findings(cfg), 'num_classes')


def test_a_string_of_classes_is_one_class_a_letter(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.metainfo = dict(classes='star')
    find_in_data(cfg, ERROR, "the string 'star'", '4 classes of one letter', "classes=('star',)")


def empty_the_first(count):
    def change(content):
        images = [image['id'] for image in content['images'][:count]]
        content['annotations'] = [item for item in content['annotations'] if item['image_id'] not in images]

    return change


def test_images_without_objects_are_counted_and_said_to_be_kept_or_dropped(root):
    edit(root, 'train', empty_the_first(5))
    content = json.loads((root / 'annotations' / 'train.json').read_text())
    count = 16 - len({item['image_id'] for item in content['annotations']})
    find_in_data(config(root), NOTE, f'train: {count} of 16 images', 'no object', 'they are kept')
    cfg = config(root)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    find_in_data(cfg, NOTE, f'train: {count} of 16 images', 'filter_cfg drops them')
    assert read_data(cfg).splits[0].is_used.sum() == 16 - count
    cfg.train_dataloader.dataset.filter_cfg = dict(min_size=200)
    find_in_data(cfg, WARNING, 'train: 16 of 16 images are left out by filter_cfg min_size=200')


def test_filtered_images_are_those_that_mmdet_filters(root):
    from mmdet.registry import DATASETS

    edit(root, 'train', empty_the_first(5))
    edit(root, 'train', first('images', width=20))
    cfg = config(root)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    kept = {os.path.basename(dataset.get_data_info(index)['img_path']) for index in range(len(dataset))}
    split = read_data(cfg).splits[0]
    assert {name for name, used in zip(split.annotations.file_names, split.is_used) if used} == kept
    objects = [len(dataset.get_data_info(index)['instances']) for index in range(len(dataset))]
    assert split.objects_by_image[split.is_used].tolist() == objects


@pytest.mark.parametrize(
    'name, place',
    [
        ('shapes/local-detr_r18-half_1xb4-10e_shapes.py', 'model.bbox_head.num_queries'),
        ('shapes/detr_r18-half_1xb4-10e_shapes.py', 'model.neck.num_queries'),
        ('mmdet', 'model.num_queries'),
    ],
)
def test_more_objects_than_queries(root, name, place):
    cfg = config(root)
    if name == 'mmdet':
        cfg.model = dict(type='DETR', num_queries=5, bbox_head=dict(type='DETRHead', num_classes=4))
    else:
        cfg = config(root, name, **{place.replace('.', '__'): 5})
    content = json.loads((root / 'annotations' / 'train.json').read_text())
    counts = np.bincount([item['image_id'] for item in content['annotations']])
    assert counts.max() > 5
    lost = np.maximum(counts - 5, 0).sum()
    find_in_data(
        cfg, WARNING, f'train: {(counts > 5).sum()} images', f'{place} = 5', f'the most are {counts.max()}', f'{lost} objects', 'raise'
    )


def test_more_objects_than_detections(root):
    cfg = config(root, 'shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py', model__test_cfg__rcnn__max_per_img=3)
    find_in_data(cfg, WARNING, 'val and test:', 'model.test_cfg.rcnn.max_per_img = 3', 'can never be found')
    assert not saying(data_findings(config(root, 'shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py')), 'more objects')


def test_objects_under_a_pixel_after_the_resizing_of_evaluation(root):
    cfg = config(root)
    cfg.val_dataloader.dataset.pipeline[2] = dict(type='Resize', scale=(24, 24), keep_ratio=True)
    edit(root, 'train', set_box(5, 5, 12, 4))  # 4 * 24 / 128 = 0.75
    find_in_data(cfg, WARNING, 'train: 1 of', 'smaller than 1 pixel', 'the smallest: 0.75', 'larger scale')


def test_rare_and_missing_classes(root):
    def keep_one_star(content):
        stars = [item for item in content['annotations'] if item['category_id'] == 4]
        content['annotations'] = [item for item in content['annotations'] if item['category_id'] != 4 or item is stars[0]]
        content['annotations'] += [{**content['annotations'][0], 'id': 10_000 + number, 'category_id': 1} for number in range(100)]

    edit(root, 'train', keep_one_star)
    find_in_data(config(root), NOTE, "'star' 1", 'a ratio of 1', 'ClassBalancedDataset')
    for split, severity, words in (('train', WARNING, 'cannot be learned'), ('test', NOTE, 'undefined')):
        edit(root, split, lambda content: content.update(annotations=[a for a in content['annotations'] if a['category_id'] != 4]))
        find_in_data(
            config(root), severity, "1 of 4 classes have no object: 'star'", words, 'train:' if split == 'train' else 'val and test:'
        )


def test_evaluation_needs_iscrowd_and_the_loaders_file(root):
    edit(root, 'test', without('annotations', 'iscrowd'))
    find_in_data(config(root), ERROR, '3 of', 'no "iscrowd"', 'write iscrowd=0')
    find_in_data(config(root, val_evaluator__ann_file='elsewhere.json'), ERROR, 'val_evaluator reads elsewhere.json', 'image ids')
