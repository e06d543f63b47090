"""What fuzzing and reading the code have found, one case each: an error without a name before, a clear refusal or a note since."""

import json

import pytest
import yaml
from mmdet.registry import DATASETS

from mmdet_detr_plugin.checkpoints.class_rows import coco_layout
from mmdet_detr_plugin.checkpoints.convert_file import read_classes
from mmdet_detr_plugin.checkpoints.hf_files import classes_of
from mmdet_detr_plugin.checkpoints.reading import read_checkpoint
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.preflight.annotations import read_annotations

from ..datasets.test_conversion import make_coco, make_voc, make_yolo

LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X'


def test_checkpoint_cut_inside_of_a_number_is_named(tmp_path):
    (tmp_path / 'cut.pth').write_bytes(LEGACY)  # torch raises struct.error
    with pytest.raises(ValueError, match=r'cut\.pth is truncated or no checkpoint \(error: unpack requires'):
        read_checkpoint(tmp_path / 'cut.pth')


@pytest.mark.parametrize('name', [[], None, {}, 7])
def test_class_list_of_other_things_than_names_is_named(name, tmp_path):
    (tmp_path / 'classes.json').write_text(json.dumps(dict(categories=[dict(id=1, name=name)])))
    with pytest.raises(ValueError, match=r'classes\.json must hold one or more different class names'):
        read_classes(tmp_path / 'classes.json')


@pytest.mark.parametrize('labels', ['[1e400]', '[1]', '{"x": "cat"}', '{"0": 7}', '"cat"', '[' * 3000])
def test_labels_of_another_program_are_named(labels, tmp_path):
    (tmp_path / 'config.json').write_text(f'{{"id2label": {labels}}}')
    with pytest.raises(ValueError, match=r'config\.json'):
        classes_of(tmp_path)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content['annotations'][0].update(category_id=[1]),
        lambda content: content['annotations'][0].update(image_id={}),
        lambda content: content['categories'][0].update(supercategory=[]),
        lambda content: content['categories'].append('cat'),
        lambda content: content['annotations'].append(7),
        lambda content: content['images'].append(None),
    ],
)
def test_coco_entries_of_other_types_are_named(change, tmp_path):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    change(content)
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'labels\.json: expected images with "id"'):
        read_dataset(tmp_path)


def test_annotation_without_a_class_is_none_of_the_class_without_an_id(tmp_path):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['categories'][0]['id'] = None
    del content['annotations'][0]['category_id']
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    assert read_dataset(tmp_path).notes['category_id is not among the categories'][0] == 'labels.json: annotation 0: None'


@pytest.mark.parametrize('names', [('cat',), ['cat'], ('N/A',) * 90])
def test_fewer_class_names_than_rows_are_not_those_of_coco(names):
    assert coco_layout(92, names) is None and coco_layout(92, None)


def test_coco_info_may_be_anything(tmp_path):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    (tmp_path / 'labels.json').write_text(json.dumps({**content, 'info': [1]}))
    assert len(read_dataset(tmp_path).images) == 2


def test_preflight_reads_names_and_numbers_of_any_kind(tmp_path):
    make_coco(tmp_path)
    content = json.loads((tmp_path / 'labels.json').read_text())
    content['categories'][0]['name'] = ['cat']
    content['annotations'][0].update(area=10**400, bbox=[10**400, 0, 1, 1])
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    assert any('no four numbers' in found.finding for found in read_annotations(tmp_path / 'labels.json').findings)


@pytest.mark.parametrize(
    'change',
    [dict(train=[['images']]), dict(train={'a': 1}), dict(path=[1]), dict(names={0: [1]}), dict(names={0: 10**4000}), dict(names=7)],
)
def test_yolo_entries_of_other_types_are_named(change, tmp_path):
    make_yolo(tmp_path, yaml.safe_dump(dict(names=['cat', 'dog'], train='images') | change))
    with pytest.raises(ValueError, match=r'data\.yaml'):
        read_dataset(tmp_path)


@pytest.mark.parametrize('line', ['x: 2001-99-99', 'x: 0x' + 'f' * 9000 + '0', 'x: ' + '9' * 5000, 'x: !!binary "x"', '? {a: 1}\n: 2'])
def test_yaml_that_python_cannot_hold_is_named_or_harmless(line, tmp_path):
    make_yolo(tmp_path, f'names: [cat, dog]\ntrain: images\n{line}\n')
    try:
        assert len(read_dataset(tmp_path).images) == 2
    except ValueError as error:
        assert 'data.yaml is not valid YAML' in str(error)


def test_lists_of_splits_in_another_encoding_are_read(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/train.txt').write_bytes('a\nb\n\xe9\n'.encode('latin-1'))
    assert len(read_dataset(tmp_path).images) == 2


def test_names_longer_than_any_file_name_are_missing_files(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'Annotations/a.xml').write_text(f'<annotation><filename>{"x" * 5000}</filename></annotation>')
    (tmp_path / 'JPEGImages/a.png').unlink()
    assert 'image file missing' in read_dataset(tmp_path).notes


def test_yolo_box_of_one_pixel_is_kept(tmp_path):
    """Its fractions give 0.9999999 pixels."""
    make_yolo(tmp_path)
    for column in range(100):  # the image is 100 x 80
        (tmp_path / 'labels/a.txt').write_text(f'0 {(column + 0.5) / 100} {0.5 / 80} {1 / 100} {1 / 80}\n')
        assert read_dataset(tmp_path).class_counts()['cat'] == 1


def test_annotations_without_images_are_named(tmp_path):
    (tmp_path / 'labels.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[dict(id=1, name='cat')])))
    config = dict(type='mmdet_detr_plugin.StrictCocoDataset', ann_file=str(tmp_path / 'labels.json'), metainfo=dict(classes=('cat',)))
    for test_mode in (False, True):
        with pytest.raises(ValueError, match=r'labels\.json'):
            DATASETS.build(dict(config, pipeline=[], test_mode=test_mode))
