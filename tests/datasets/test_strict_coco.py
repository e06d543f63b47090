"""What the user reads when data and config do not fit, through mmdet's own data set building."""

import json
import re

import pytest
from mmdet.registry import DATASETS

from mmdet_detr_plugin.datasets import strict_reading

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
CLASSES = ('circle', 'square', 'triangle', 'star')


@pytest.fixture
def copy_of_shapes(shapes_dir, tmp_path):
    """The annotations to change; images are links to the originals."""
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'train.json').write_text((shapes_dir / 'annotations' / 'train.json').read_text())
    (tmp_path / 'train').mkdir()
    for image in (shapes_dir / 'train').iterdir():
        (tmp_path / 'train' / image.name).write_bytes(image.read_bytes())
    return tmp_path


def build(root, classes=CLASSES, ann_file='annotations/train.json'):
    return DATASETS.build(
        dict(
            type='mmdet_detr_plugin.StrictCocoDataset',
            data_root=str(root),
            ann_file=ann_file,
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
            filter_cfg=None,
            pipeline=PIPELINE,
        )
    )


def edit(root, change) -> None:
    path = root / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_reads_what_mmdets_dataset_reads(shapes_dir):
    ours = build(shapes_dir)
    theirs = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(shapes_dir),
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=CLASSES),
            filter_cfg=None,
            pipeline=PIPELINE,
        )
    )
    assert len(ours) == len(theirs) == 16
    for index in range(16):
        assert ours.get_data_info(index) == theirs.get_data_info(index)


def test_images_without_objects_are_kept(copy_of_shapes):
    edit(copy_of_shapes, lambda content: content.update(annotations=[a for a in content['annotations'] if a['image_id'] > 8]))
    assert len(build(copy_of_shapes)) == 16


def test_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'annotation file .*nowhere.json does not exist.*Expected a COCO JSON'):
        build(tmp_path, ann_file='nowhere.json')


@pytest.mark.parametrize(
    'text, reason',
    [('{"images": [', r' \(JSONDecodeError'), ('[]', r' \(AssertionError'), ('{"images": []}', ": expected .*there is no 'categories'")],
)
def test_file_that_is_no_coco_json_is_named(tmp_path, text, reason):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(ValueError, match=f'x.json: not a COCO JSON{reason}'):
        build(tmp_path, ann_file='x.json')


def test_misspelt_class_is_named_with_the_names_there_are(shapes_dir):
    with pytest.raises(
        ValueError, match=re.escape("names ('circel'), which ") + r".*its categories are \('circle', 'square', 'triangle', 'star'\)"
    ):
        build(shapes_dir, classes=('circel', 'square', 'triangle', 'star'))


def test_classes_in_another_order_are_refused(shapes_dir):
    with pytest.raises(ValueError, match='another order.*names would be swapped'):
        build(shapes_dir, classes=('square', 'circle', 'triangle', 'star'))


def test_some_of_the_classes_may_be_chosen_and_the_others_are_announced(shapes_dir, monkeypatch):
    messages = []
    monkeypatch.setattr(strict_reading, 'print_log', lambda message, *args: messages.append(message))
    dataset = build(shapes_dir, classes=('square', 'star'))
    assert {instance['bbox_label'] for index in range(16) for instance in dataset.get_data_info(index)['instances']} == {0, 1}
    content = json.loads((shapes_dir / 'annotations' / 'train.json').read_text())
    others = sum(item['category_id'] in (1, 3) for item in content['annotations'])
    assert any(f"{others} annotations are of ('circle', 'triangle'), which metainfo.classes does not name" in text for text in messages)
    messages.clear()
    build(shapes_dir)
    assert not any('does not name' in text for text in messages)


def test_classes_as_one_string_are_refused(shapes_dir):
    with pytest.raises((ValueError, FileNotFoundError, TypeError), match='circle'):
        build(shapes_dir, classes='circle')


def test_category_that_is_not_listed_is_named(copy_of_shapes):
    edit(copy_of_shapes, lambda content: content['annotations'][5].update(category_id=77))
    with pytest.raises(ValueError, match='has category_id 77, which is not among'):
        build(copy_of_shapes)


@pytest.mark.parametrize('content', [b'', b'not an image', None], ids=['empty', 'text', 'missing'])
def test_corrupt_image_is_named(copy_of_shapes, content):
    path = copy_of_shapes / 'train' / '000003.png'
    path.unlink() if content is None else path.write_bytes(content)
    dataset = build(copy_of_shapes)
    dataset[0]
    with pytest.raises(ValueError, match=r'Image .*000003.png (is missing|cannot be read)'):
        dataset[2]


def test_truncated_image_is_named(copy_of_shapes):
    path = copy_of_shapes / 'train' / '000003.png'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match='000003.png cannot be read'):
        build(copy_of_shapes)[2]
