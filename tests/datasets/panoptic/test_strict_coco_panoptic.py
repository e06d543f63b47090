"""What the user reads when panoptic data and config do not fit, through mmdet's own data set building."""

import copy
import json
import random

import pytest
from mmdet.registry import DATASETS

from mmdet_detr_plugin.datasets.panoptic.annotation_checks import CheckedCOCOPanoptic, divided_stuff
from mmdet_detr_plugin.datasets.shapes import CLASSES as SHAPES
from mmdet_detr_plugin.datasets.shapes import STUFF_CLASSES

from .builders import CATEGORIES, CLASSES, ids_of, segment, write_dataset

IDS = ids_of("""
    1 1 2
    3 3 3
""")
SEGMENTS = [segment(1, 'cat', IDS), segment(2, 'dog', IDS, iscrowd=1), segment(3, 'sky', IDS)]


def build(root, classes=CLASSES, ann_file='panoptic.json', **changes):
    metainfo = dict(classes=classes) | changes.pop('metainfo', {})
    prefix = dict(img='images/', seg='segments/')
    config = dict(
        type='mmdet_detr_plugin.StrictCocoPanopticDataset',
        data_root=str(root),
        ann_file=ann_file,
        data_prefix=prefix,
        metainfo=metainfo,
        filter_cfg=None,
        pipeline=[],
        serialize_data=False,  # takes longer than all the rest
    )
    return DATASETS.build(config | changes)


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path, [IDS], [SEGMENTS])


def edit(root, change) -> None:
    content = json.loads((root / 'panoptic.json').read_text())
    change(content)
    (root / 'panoptic.json').write_text(json.dumps(content))


def test_reads_what_mmdets_data_set_reads(shapes_dir):
    config = dict(ann_file='annotations/panoptic_train.json', data_prefix=dict(img='train/', seg='annotations/panoptic_train/'))
    ours = build(shapes_dir, SHAPES + STUFF_CLASSES, **copy.deepcopy(config))
    theirs = build(shapes_dir, SHAPES + STUFF_CLASSES, type='CocoPanopticDataset', **config)
    assert len(ours) == len(theirs) == 16
    for index in range(16):
        info = ours.get_data_info(index)
        assert not any(segment.pop('is_crowd') for segment in info['segments_info'])
        assert info == theirs.get_data_info(index)


def test_names_of_pngs_crowds_and_things_come_from_the_file(root):
    data = build(root)
    info = data.get_data_info(0)
    assert info['seg_map_path'].endswith('segments/s1.png')
    assert [(one['is_thing'], one['is_crowd']) for one in info['segments_info']] == [(True, False), (False, True), (False, False)]
    assert [one['bbox_label'] for one in info['instances']] == [0]
    assert data.metainfo['thing_classes'] == ('cat', 'dog') and data.metainfo['stuff_classes'] == ('grass', 'sky')


def test_crowd_of_another_image_with_the_same_id_is_none(tmp_path):
    crowd = [segment(1, 'cat', IDS, iscrowd=1), segment(2, 'dog', IDS), segment(3, 'sky', IDS)]
    data = build(write_dataset(tmp_path, [IDS, IDS], [SEGMENTS, crowd]))
    assert [[one['is_crowd'] for one in data.get_data_info(index)['segments_info']] for index in range(2)] == [
        [False, True, False],
        [True, False, False],
    ]


def test_an_image_is_given_its_own_segments_alone(shapes_dir):
    """Their ids repeat between images; with those of all images for each, loading takes the square of the time."""
    path = shapes_dir / 'annotations' / 'panoptic_train.json'
    coco = CheckedCOCOPanoptic(str(path))
    annotations = json.loads(path.read_text())['annotations']
    assert len({segment['id'] for item in annotations for segment in item['segments_info']}) < len(annotations)
    for item in annotations:
        found = coco.load_anns(coco.get_ann_ids(img_ids=[item['image_id']]))
        assert [(segment['image_id'], segment['id']) for segment in found] == [
            (item['image_id'], segment['id']) for segment in item['segments_info']
        ]


def test_test_sets_need_no_annotations(root):
    edit(root, lambda content: content.pop('annotations'))
    assert build(root, test_mode=True).get_data_info(0)['seg_map_path'] is None


def test_draws_belong_to_the_sample(root):
    data = build(root)
    data.pipeline = lambda info: random.random()
    drawn = []
    for epoch in (0, 1, 0):
        data.sample_randomness.set(seed=0, epoch=epoch)
        drawn.append(data[0])
    assert drawn[0] == drawn[2] != drawn[1]


def of(key: str, **values):
    return lambda content: content[key][0].update(values)


def of_segment(**values):
    return lambda content: content['annotations'][0]['segments_info'][0].update(values)


def swap(content) -> None:
    content['categories'] = [CATEGORIES[index] for index in (0, 2, 1, 3)]


@pytest.mark.parametrize(
    'change, reads',
    [
        (lambda content: content.pop('categories'), "not a panoptic COCO JSON: expected .*there is no 'categories'"),
        (lambda content: content['annotations'].append(content['annotations'][0]), 'image 1 has two annotations'),
        (lambda content: content['annotations'].clear(), "no annotation for 1 of its 1 images, the first: 'i1.png'"),
        (of('annotations', image_id=7), 'image_id 7, which is not among'),
        (of('annotations', file_name='http://else/s1.png'), "image 1 has the file_name 'http.*expected the path of its PNG"),
        (of('annotations', file_name=None), 'image 1 has the file_name None'),
        (of('annotations', segments_info=None), 'must be an object with "image_id", "file_name" and the list "segments_info"'),
        (of('images', file_name='http://else/i1.png'), 'file_name .*http://else/i1.png'),
        (of('images', width=0), 'image 1 has the width 0'),
        (of('categories', isthing=None), r"category 10 \('cat'\) has isthing None"),
        (of_segment(id=0), 'an "id" from 1 to 16777215'),
        (of_segment(id=2), 'has segment 2 twice'),
        (of_segment(category_id=77), 'segment 1 in the annotation of image 1 has category_id 77'),
        (of_segment(bbox=[0, 0, 1]), r'segment 1 .*bbox \[0, 0, 1\]'),
        (of_segment(area=None), 'segment 1 .*has the area None'),
        (of_segment(iscrowd=2), 'segment 1 .*has iscrowd 2'),
        (lambda content: [one.update(iscrowd=1) for one in content['annotations'][0]['segments_info']], 'no segment to train on'),
    ],
)
def test_entry_that_is_not_cocos_is_named(root, change, reads):
    edit(root, change)
    with pytest.raises(ValueError, match=rf'panoptic.json.*{reads}'):
        build(root)


@pytest.mark.parametrize(
    'changes, error, reads',
    [
        (dict(classes=('cat', 'dog', 'gras', 'sky')), ValueError, r"names \('gras'\), which .*panoptic.json does not have"),
        (dict(classes=('dog', 'cat', 'grass', 'sky')), ValueError, 'another order'),
        (dict(classes=('cat', 'grass', 'sky')), ValueError, r"metainfo.classes lacks \('dog'\) of .*panoptic.json"),
        (dict(ann_file='nowhere.json'), FileNotFoundError, 'nowhere.json does not exist.*Expected a panoptic COCO JSON'),
        (dict(data_prefix=dict(img='images/')), ValueError, 'panoptic.json has no seg'),
        (dict(metainfo=dict(thing_classes=('cat',))), ValueError, r"thing_classes is \('cat'\), isthing in .*panoptic.json says"),
    ],
)
def test_config_that_does_not_fit_the_file_is_named(root, changes, error, reads):
    with pytest.raises(error, match=reads):
        build(root, **changes)


def test_stuff_before_things_is_refused(root):
    edit(root, swap)
    with pytest.raises(ValueError, match="panoptic.json lists the stuff 'grass' before the thing 'dog'"):
        build(root, classes=('cat', 'grass', 'dog', 'sky'))


def test_more_classes_than_labels_is_refused(root):
    names = [*CLASSES, *(f'stuff {number}' for number in range(252))]
    more = [dict(id=number, name=name, isthing=int(number < 12)) for number, name in enumerate(names, start=10)]
    edit(root, lambda content: content.update(categories=more))
    with pytest.raises(ValueError, match='has 256 categories; at most 255'):
        build(root, classes=tuple(names))
    edit(root, lambda content: content.update(categories=more[:255]))
    assert len(build(root, classes=tuple(names[:255]))) == 1


def test_image_that_cannot_be_read_is_named(root):
    (root / 'images' / 'i1.png').write_bytes(b'no image')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmdet_detr_plugin.LoadPanopticAnnotations'), dict(type='PackDetInputs')]
    with pytest.raises(ValueError, match=r'Image .*i1.png cannot be read'):
        build(root, pipeline=pipeline)[0]


def test_stuff_in_several_segments_is_announced():
    """Two halves of a class have an IoU of a half each with the best prediction there is, its whole."""
    categories = [dict(id=1, name='cat', isthing=1), dict(id=2, name='sky', isthing=0)]

    def told(*kinds):
        segments = [dict(id=number, category_id=kind, iscrowd=crowd) for number, (kind, crowd) in enumerate(kinds, start=1)]
        return list(divided_stuff(dict(categories=categories, annotations=[dict(image_id=7, segments_info=segments)])))

    assert told((1, 0), (1, 0), (2, 0)) == told((2, 0), (2, 1)) == []
    (text,) = told((2, 0), (1, 0), (2, 0))
    assert text.startswith('1 times an image has several segments of one stuff class') and 'category 2 in image 7' in text
