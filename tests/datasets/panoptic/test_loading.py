"""Masks and the map of labels that training sees, and what is said about PNGs that do not fit."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, TRANSFORMS

from mmdet_detr_plugin.datasets.panoptic.segment_ids import decode_png, encode_png

from .builders import CLASSES, STUFF, THINGS, ids_of, segment, write_dataset

IDS = ids_of("""
    70000 70000     0   300
    70000 70000   257   300
        5     5   257   257
    65536 65536     9     9
""")
SEGMENTS = [
    segment(70000, 'dog', IDS),
    segment(257, 'cat', IDS),
    segment(300, 'sky', IDS),
    segment(5, 'cat', IDS, iscrowd=1),
    segment(65536, 'grass', IDS),
]  # 9 is not listed
V = 255
SEG_MAP = [[1, 1, V, 3], [1, 1, 0, 3], [V, V, 0, 0], [2, 2, V, V]]


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path, [IDS], [SEGMENTS])


def dataset(root, kind: str = 'mmdet_detr_plugin.StrictCocoPanopticDataset', **loading):
    """mmdet's takes the PNG's name from the image's."""
    names = dict(thing_classes=THINGS, stuff_classes=STUFF)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet_detr_plugin.LoadPanopticAnnotations', **loading),
        dict(type='PackDetInputs'),
    ]
    return DATASETS.build(
        dict(
            type=kind,
            data_root=str(root),
            ann_file='panoptic.json',
            data_prefix=dict(img='images/', seg='segments/'),
            metainfo=dict(classes=CLASSES, **names),
            pipeline=pipeline,
            serialize_data=False,  # takes longer than all the rest
        )
    )


@pytest.mark.parametrize('kind, loading', [('mmdet_detr_plugin.StrictCocoPanopticDataset', {}), ('CocoPanopticDataset', dict(things=2))])
def test_map_and_masks_are_those_of_the_file(root, kind, loading):
    if kind == 'CocoPanopticDataset':
        loading = dict(num_things_classes=loading['things'])
        (root / 'segments' / 'i1.png').write_bytes((root / 'segments' / 's1.png').read_bytes())
    sample = dataset(root, kind, **loading)[0]['data_samples']
    seg_map = sample.gt_sem_seg.sem_seg
    assert seg_map.dtype == torch.uint8 and seg_map.tolist() == [SEG_MAP]
    things = sample.gt_instances
    assert things.labels.tolist() == [1, 0]
    assert things.bboxes.tensor.tolist() == [[0, 0, 2, 2], [2, 1, 4, 3]]
    assert np.array_equal(things.masks.masks, np.stack((IDS == 70000, IDS == 257)))
    assert not len(sample.ignored_instances.labels)


def test_crowds_that_cannot_be_told_from_stuff_are_refused(root):
    (root / 'segments' / 'i1.png').write_bytes((root / 'segments' / 's1.png').read_bytes())
    with pytest.raises(ValueError, match=r'i1.png: .* stuff or a crowd of things. Set num_things_classes .*StrictCocoPanopticDataset'):
        dataset(root, 'CocoPanopticDataset')[0]


def test_ids_survive_the_png():
    ids = np.random.default_rng(0).integers(0, 256**3, (30, 40))
    assert np.array_equal(decode_png(encode_png(ids)), ids)
    assert cv2.imdecode(np.frombuffer(encode_png(np.array([[0x010203]])), np.uint8), cv2.IMREAD_COLOR).tolist() == [[[1, 2, 3]]]  # BGR


def replaced(content: bytes):
    return lambda path: path.write_bytes(content)


def truncated(path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def png(image) -> bytes:
    return cv2.imencode('.png', image)[1].tobytes()


@pytest.mark.parametrize(
    'plant, reads',
    [
        (lambda path: path.unlink(), 'is missing'),
        (replaced(b''), 'cannot be read as an image'),
        (replaced(b'nothing'), 'cannot be read as an image'),
        (truncated, 'cannot be read as an image'),
        (replaced(png(np.zeros((4, 4), np.uint8))), 'expected the three of RGB, with 8 bits each'),
        (replaced(png(np.zeros((4, 4, 3), np.uint16))), 'expected the three of RGB, with 8 bits each'),
        (replaced(encode_png(np.zeros((5, 4), int))), r'is 4 x 5 pixels \(width x height\), its image 4 x 4'),
        (replaced(encode_png(np.where(IDS == 257, 258, IDS))), 'has no pixel of 1 segments that the annotation file lists: 257'),
    ],
    ids=['missing', 'empty', 'text', 'truncated', 'gray', '16 bits', 'size', 'segment'],
)
def test_png_that_does_not_fit_is_named(root, plant, reads):
    plant(root / 'segments' / 's1.png')
    with pytest.raises(ValueError, match=rf's1.png .*{reads}'):
        dataset(root)[0]


def test_label_that_does_not_fit_beside_void_is_refused(root):
    results = dict(seg_map_path=str(root / 'segments' / 's1.png'), ori_shape=(4, 4), instances=[])
    results['segments_info'] = [dict(id=5, category=255, is_thing=False, is_crowd=False)]
    with pytest.raises(ValueError, match='label 255 does not fit into gt_seg_map'):
        TRANSFORMS.build(dict(type='mmdet_detr_plugin.LoadPanopticAnnotations')).transform(results)


def test_masks_that_belong_to_no_box_are_refused(root):
    data = dataset(root)
    info = data.get_data_info(0)
    info['instances'].reverse()
    with pytest.raises(ValueError, match=r'things of segments_info have the labels \[1, 0\], the instances \[0, 1\]'):
        data.pipeline(info)


def test_images_without_ground_truth_load(root):
    results = dict(seg_map_path=None, ori_shape=(4, 4), instances=[])
    loaded = TRANSFORMS.build(dict(type='mmdet_detr_plugin.LoadPanopticAnnotations')).transform(results)
    assert 'gt_seg_map' not in loaded and len(loaded['gt_bboxes']) == 0
