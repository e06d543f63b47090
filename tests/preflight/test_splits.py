"""What is read from a config's loaders, and what happens when it cannot be read."""

import functools

import pytest

from mmdet_detr_plugin.preflight import ERROR, NOTE, WARNING, data_findings, findings, read_annotations, read_data

from .planting import CLASSES, config, find_in_data, saying, write


@pytest.mark.parametrize(
    'content, words',
    [
        (None, ['does not exist', 'data_root', 'expected a COCO JSON']),
        ('{"images": [', ['is no JSON', 'expected']),
        ('[1, 2]', ['is no COCO JSON', 'got a list']),
        ('{"images": []}', ['is no COCO JSON', "the keys 'images'"]),
        ('{"images": [], "annotations": [3], "categories": []}', ['"annotations" is no list of objects']),
        ('{"images": [], "annotations": [{"segments_info": []}], "categories": []}', ['panoptic']),
    ],
)
def test_a_broken_annotation_file_is_an_error_and_no_traceback(root, content, words):
    path = root / 'annotations' / 'train.json'
    path.unlink() if content is None else path.write_text(content)
    assert 'train.json' in find_in_data(config(root), ERROR, 'train:', *words).finding


def test_odd_values_everywhere_are_findings_and_no_traceback(root):
    odd = dict(
        images=[dict(id=[1], file_name=7, width='x', height=None), dict()],
        annotations=[dict(image_id={}, category_id=[2], bbox='box', area='large', id=None, iscrowd=[]), dict()],
        categories=[dict(id=1, name=None), dict(id=None)],
    )
    write(root, 'train', odd)
    findings = data_findings(config(root))
    assert saying(findings, 'have no "width"') and saying(findings, 'no four numbers')
    assert any(item.severity == ERROR for item in findings)


def test_a_config_without_loaders_or_with_half_of_one(root):
    cfg = config(root)
    for loader in ('val', 'test'):
        cfg.pop(f'{loader}_dataloader')
    find_in_data(cfg, WARNING, 'no val_dataloader and no test_dataloader')
    cfg.train_dataloader = dict(batch_size=4)
    find_in_data(cfg, ERROR, 'train_dataloader has no data set', 'None')
    cfg.pop('train_dataloader')
    find_in_data(cfg, ERROR, 'the config has no loaders')


def test_data_sets_inside_wrappers_are_read(root):
    cfg = config(root)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=3, dataset=inner), dict(type='SeededDataset', dataset=inner)]
    )
    splits = read_data(cfg).training()
    assert [(split.name, split.repeats, split.num_images) for split in splits] == [('train 1', 3, 16), ('train 2', 1, 16)]
    assert splits[0].annotations is splits[1].annotations  # parsed once
    assert splits[0].pipeline == splits[1].pipeline == inner.pipeline
    mixed = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[dict(type='Mosaic')])
    cfg.train_dataloader.dataset = dict(type='SeededDataset', dataset=mixed, pipeline=[dict(type='Resize', scale=(64, 64))])
    steps = read_data(cfg).training()[0].pipeline  # in the order in which they are applied
    assert steps[: len(inner.pipeline)] == inner.pipeline and [step['type'] for step in steps[-2:]] == ['Mosaic', 'Resize']


def test_default_classes_of_coco_and_data_sets_of_other_kinds(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.pop('metainfo')
    find_in_data(cfg, ERROR, 'train: none of the 80 classes')
    cfg.train_dataloader.dataset.type = 'VOCDataset'
    find_in_data(cfg, NOTE, 'train:', 'VOCDataset are not read here', 'convert_dataset.py')
    cfg.train_dataloader.dataset.type = 'mmdet_detr_plugin.Misspelt'
    find_in_data(cfg, ERROR, 'train:', 'Misspelt', 'is not known')


def test_a_remote_file_is_not_checked_and_said_so(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.data_root = 's3://bucket/'
    find_in_data(cfg, NOTE, 'train:', 's3://bucket/annotations/train.json', 'nothing of it was checked')


def test_a_class_file_is_read_as_mmengine_reads_it(root):
    (root / 'classes.txt').write_text('\n'.join(CLASSES))
    cfg = config(root)
    cfg.train_dataloader.dataset.metainfo = dict(classes=str(root / 'classes.txt'))
    assert read_data(cfg).splits[0].classes == CLASSES


def test_the_config_is_left_as_it_was(root):
    cfg = config(root)
    before = cfg.to_dict()
    data_findings(cfg)
    assert cfg.to_dict() == before


def test_several_configs_read_a_shared_file_once_and_find_the_same(root):
    (root / 'annotations' / 'test.json').write_text('no JSON')
    write(root, 'train', dict(images=[dict(id=1, file_name='a.png')], annotations=[], categories=[dict(id=1, name=CLASSES[0])]))
    alone, names = findings(config(root)), []

    def read(path, panoptic):
        names.append(path.name)
        return read_annotations(path, panoptic)

    shared = functools.cache(read)
    for _ in range(2):
        assert findings(config(root), shared) == alone
    assert names.count('train.json') == 1 and saying(alone, 'no JSON') and saying(alone, 'have no "width"')
