"""Folders in COCO's panoptic format become data that panoptic configs, and those for boxes, train on."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from pycocotools import mask as run_lengths

from mmdet_detr_plugin.comparison.preparation import load_models
from mmdet_detr_plugin.datasets.conversion import with_splits, write_coco
from mmdet_detr_plugin.datasets.data_configs import config_for_dataset, trains_on_segments
from mmdet_detr_plugin.datasets.panoptic.segment_ids import encode_png
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.datasets.shapes import write_split
from mmdet_detr_plugin.preflight.folder import config_for_folder

from ...conftest import ROOT
from ..test_conversion import make_coco
from .builders import CATEGORIES, ids_of, segment, write_dataset

IDS = ids_of("""
    1 1 2 2 2
    1 1 2 2 2
    3 3 3 0 9
    3 3 3 9 9
""")
SEGMENTS = [segment(1, 'cat', IDS), segment(2, 'sky', IDS), segment(3, 'dog', IDS, iscrowd=1), segment(9, 'cat', IDS)]
# of one family the others differ in the backbone
PANOPTIC = [path.stem for path in sorted((ROOT / 'configs').glob('*/panoptic*.py')) if not {'r101', 'r50-dc5'} & set(path.stem.split('_'))]


def converted(source, out):
    files = write_coco(with_splits(read_dataset(source, panoptic=True)), out, source)
    return {path.stem: json.loads(path.read_text()) for path in files}


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / 'source', [IDS, np.where(IDS == 1, 0, IDS)], [SEGMENTS, SEGMENTS[1:]])


def test_all_segments_and_the_things_among_them_are_written(tmp_path, folder):
    files = converted(folder, tmp_path / 'out')
    assert sorted(files) == ['panoptic_train', 'panoptic_val', 'train', 'val']
    by_image = {content['images'][0]['file_name']: content for name, content in files.items() if name.startswith('panoptic')}
    content = by_image['images/i1.png']
    assert [(c['name'], c['isthing']) for c in content['categories']] == [('cat', 1), ('dog', 1), ('grass', 0), ('sky', 0)]
    (annotation,) = content['annotations']
    assert annotation['file_name'] == 'segments/s1.png'
    assert annotation['segments_info'] == [
        dict(id=1, category_id=1, bbox=[0, 0, 2, 2], area=4, iscrowd=0),
        dict(id=2, category_id=4, bbox=[2, 0, 3, 2], area=6, iscrowd=0),
        dict(id=3, category_id=2, bbox=[0, 2, 3, 2], area=6, iscrowd=1),
        dict(id=9, category_id=1, bbox=[3, 2, 2, 2], area=3, iscrowd=0),
    ]
    things = next(files[name] for name in ('train', 'val') if files[name]['images'] == content['images'])
    assert [category['name'] for category in things['categories']] == ['cat', 'dog']
    assert [(a['category_id'], a['bbox'], a['area'], a['iscrowd']) for a in things['annotations']] == [
        (1, [0, 0, 2, 2], 4, 0),
        (2, [0, 2, 3, 2], 6, 1),
        (1, [3, 2, 2, 2], 3, 0),
    ]
    for entry, number in zip(things['annotations'], (1, 3, 9), strict=True):
        np.testing.assert_array_equal(run_lengths.decode(entry['segmentation']), np.equal(IDS, number))


def test_boxes_and_areas_are_those_of_the_pixels(tmp_path):
    """A file's own may be of a mask before others were drawn over it."""
    wrong = [{**SEGMENTS[0], 'bbox': [0, 0, 5, 4], 'area': 20}, SEGMENTS[1]]
    files = converted(write_dataset(tmp_path / 'source', [IDS] * 2, [wrong] * 2), tmp_path / 'out')
    assert files['panoptic_val']['annotations'][0]['segments_info'][0]['bbox'] == [0, 0, 2, 2]
    assert files['val']['annotations'][0]['area'] == 4


def test_things_come_first_whatever_the_order_of_the_source(tmp_path):
    source = write_dataset(tmp_path / 'source', [IDS] * 2, [SEGMENTS] * 2, categories=CATEGORIES[::-1])
    files = converted(source, tmp_path / 'out')
    assert [category['name'] for category in files['panoptic_val']['categories']] == ['dog', 'cat', 'sky', 'grass']
    names = {category['id']: category['name'] for category in files['val']['categories']}
    assert [names[annotation['category_id']] for annotation in files['val']['annotations']] == ['cat', 'dog', 'cat']


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    source = write_dataset(tmp_path / 'source', [IDS] * 5, [[*SEGMENTS, {**SEGMENTS[0], 'id': 77}]] * 5)
    content = json.loads((source / 'panoptic.json').read_text())
    (source / 'segments/s2.png').unlink()
    (source / 'segments/s3.png').write_bytes(encode_png(IDS[:2]))
    content['annotations'][3]['file_name'] = '../s4.png'
    del content['annotations'][4]
    (source / 'panoptic.json').write_text(json.dumps(content))
    records = read_dataset(source, panoptic=True)
    assert [image.path.name for image in records.images] == ['i1.png']
    assert [box.segment_id for box in records.images[0].boxes] == [1, 2, 3, 9]
    notes = {reason: ' '.join(where) for reason, where in records.notes.items()}
    assert 'segment 77' in notes['segment without a pixel in its PNG (left out)']
    assert 's2.png, looked for in' in notes['PNG of segments missing (image left out); unpack them']
    assert 's3.png is 5 x 2 pixels' in notes['PNG of segments not usable (image left out)']
    assert '../s4.png' in notes['PNG of segments outside of the data set (image left out)']
    assert 'i5.png' in notes['image without segments (left out)']


LAYOUTS = [  # JSON, its images, its PNGs
    ('panoptic.json', 'images', 'panoptic'),
    ('segments.json', 'images', 'segments'),
    ('train.json', 'images/train', 'train'),
    ('train.json', 'train', 'panoptic/train'),
    ('labels.json', '.', 'masks'),
    ('annotations/panoptic_train2017.json', 'train2017', 'annotations/panoptic_train2017'),
    ('annotations/ade20k_panoptic_train.json', 'images/training', 'annotations/ade20k_panoptic_train'),
]


@pytest.mark.parametrize(('name', 'images', 'pngs'), LAYOUTS)
def test_images_and_segments_of_equal_names_are_told_apart(tmp_path, name, images, pngs):
    source = write_dataset(tmp_path / 'written', [IDS] * 2, [SEGMENTS] * 2)
    content = json.loads((source / 'panoptic.json').read_text())
    for image, annotation in zip(content['images'], content['annotations']):
        for file, folder in ((source / 'images' / image['file_name'], images), (source / 'segments' / annotation['file_name'], pngs)):
            (tmp_path / 'mine' / folder).mkdir(parents=True, exist_ok=True)
            file.rename(tmp_path / 'mine' / folder / f'{image["id"]}.png')
        image['file_name'] = annotation['file_name'] = f'{image["id"]}.png'
    (tmp_path / 'mine' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'mine' / name).write_text(json.dumps(content))
    records = read_dataset(tmp_path / 'mine', panoptic=True)
    assert [image.path for image in records.images] == [tmp_path / 'mine' / images / f'{number}.png' for number in (1, 2)]
    assert [image.segment_map for image in records.images] == [tmp_path / 'mine' / pngs / f'{number}.png' for number in (1, 2)]
    assert not records.notes


def test_a_png_of_segments_is_never_the_image(tmp_path, folder):
    content = json.loads((folder / 'panoptic.json').read_text())
    content['images'][0]['file_name'] = 's1.png'
    (folder / 'panoptic.json').write_text(json.dumps(content))
    (folder / 'segments').rename(folder / 'panoptic')
    records = read_dataset(folder, panoptic=True)
    assert [image.path.name for image in records.images] == ['i2.png']
    assert records.notes['image file missing'] == [f'{folder}/panoptic/s1.png is the PNG of its segments']


def test_pixels_that_no_segment_lists_are_counted_and_anothers_png_is_left_out(tmp_path):
    source = write_dataset(tmp_path / 'source', [IDS, IDS, IDS + 100], [SEGMENTS, SEGMENTS[:3], SEGMENTS])
    records = read_dataset(source, panoptic=True)
    assert len(records.images) == 2
    unlisted = records.notes['pixels of ids that are not in segments_info (void)']
    assert unlisted[0] == f'{source}/segments/s2.png: {{9: 3}}'
    assert records.notes["PNG without any of its segments (image left out): is it another image's?"] == [f'{source}/segments/s3.png']


def test_what_is_not_used_is_not_asked_for(tmp_path, folder):
    """Boxes and areas, and annotations of images that the file does not list."""
    content = json.loads((folder / 'panoptic.json').read_text())
    content['annotations'].append(dict(image_id=99, file_name='s99.png', segments_info=[]))
    for segment_info in content['annotations'][0]['segments_info']:
        del segment_info['bbox'], segment_info['area']
    (folder / 'panoptic.json').write_text(json.dumps(content))
    records = read_dataset(folder, panoptic=True)
    assert records.notes == {'annotation of an image that is not listed': ['panoptic.json: image_id 99']}
    assert [(box.x, box.area) for box in records.images[0].boxes] == [(0, 4), (2, 6), (0, 6), (3, 3)]


def test_a_split_that_is_lost_is_not_replaced_by_another(tmp_path, folder):
    content = json.loads((folder / 'panoptic.json').read_text())
    (folder / 'panoptic.json').rename(folder / 'panoptic_val.json')
    content['images'] = [{**image, 'file_name': f'lost{image["id"]}.png'} for image in content['images']]
    (folder / 'panoptic_train.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'panoptic_train.json: none of its 2 images could be used \(image file missing: 2, .*lost2.png'):
        read_dataset(folder, panoptic=True)
    (folder / 'panoptic_train.json').write_text(json.dumps(content | dict(annotations=[])))  # a test set without ground truth
    records = read_dataset(folder, panoptic=True)
    assert len(records.notes['image without segments (left out)']) == 2 and len(records.images) == 2


def test_broken_files_are_named(tmp_path, folder):
    content = json.loads((folder / 'panoptic.json').read_text())
    del content['annotations'][0]['segments_info'][0]['category_id']
    (folder / 'panoptic.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'panoptic.json: segment 1 in the annotation of image 1 has category_id None'):
        read_dataset(folder, panoptic=True)


def test_a_class_is_a_thing_or_stuff(tmp_path, folder):
    content = json.loads((folder / 'panoptic.json').read_text())
    content['categories'] = [{**category, 'isthing': 0} for category in CATEGORIES]
    content['images'] = [{**image, 'file_name': f'o{image["id"]}.png'} for image in content['images']]
    for name in ('o1.png', 'o2.png'):
        cv2.imwrite(str(folder / 'images' / name), np.zeros((*IDS.shape, 3), np.uint8))
    (folder / 'panoptic_val.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"panoptic_val.json: 'cat' is a thing \(isthing 1\) and stuff"):
        read_dataset(folder, panoptic=True)
    (folder / 'panoptic.json').unlink()
    with pytest.raises(ValueError, match='has no things .*only stuff: cat, dog, grass, sky'):
        read_dataset(folder, panoptic=True)


def test_segments_are_asked_for_and_must_be_there(tmp_path, folder):
    with pytest.raises(ValueError, match='no layout known here.* has panoptic segments: convert it with --panoptic'):
        read_dataset(folder)
    (folder / 'panoptic.json').unlink()
    make_coco(folder / 'boxes')
    with pytest.raises(ValueError, match=r'It has boxes \(COCO\), for which there are other configs'):
        read_dataset(folder / 'boxes', panoptic=True)
    with pytest.raises(ValueError, match='Looked for: JSON files of COCO\'s panoptic format, whose annotations have "segments_info"'):
        read_dataset(folder, panoptic=True)


def test_segments_of_others_are_never_replaced_and_own_ones_never_left_behind(tmp_path, folder):
    out = tmp_path / 'out'
    (out / 'annotations').mkdir(parents=True)
    theirs = out / 'annotations/panoptic_test.json'
    theirs.write_text('{}')
    records = with_splits(read_dataset(folder, panoptic=True))
    with pytest.raises(ValueError, match=r'panoptic_test.json was not written by this tool .*--out'):
        write_coco(records, out, folder)
    theirs.unlink()
    write_coco(records, out, folder)
    make_coco(tmp_path / 'boxes')
    boxes = with_splits(read_dataset(tmp_path / 'boxes'))
    theirs.write_text('{}')
    write_coco(boxes, out, tmp_path / 'boxes')  # it writes no such file
    assert sorted(path.name for path in (out / 'annotations').iterdir()) == ['panoptic_test.json', 'train.json', 'val.json']


@pytest.mark.parametrize('name', PANOPTIC)
def test_every_panoptic_config_is_pointed_at_the_segments(tmp_path, folder, name):
    converted(folder, tmp_path / 'out')
    (config,) = (ROOT / 'configs').glob(f'*/{name}.py')
    (tmp_path / 'config.py').write_text(config_for_dataset(config, tmp_path / 'out'))
    cfg = Config.fromfile(tmp_path / 'config.py')
    dataset = DATASETS.build(cfg.train_dataloader.dataset | dict(pipeline=[]))
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'grass', 'sky') and len(dataset) == 1
    assert dataset.metainfo['stuff_classes'] == ('grass', 'sky')
    assert (tmp_path / 'source/segments').resolve() == Path(dataset[0]['seg_map_path']).resolve().parent
    is_fpn = 'roi_head' in cfg.model
    heads = (cfg.model.semantic_head, cfg.model.panoptic_fusion_head) if is_fpn else (cfg.model,)
    assert all((head.num_things_classes, head.num_stuff_classes) == (2, 2) for head in heads)
    of_boxes = cfg.model.roi_head.bbox_head if is_fpn else cfg.model.bbox_head
    assert of_boxes.num_classes == (2 if is_fpn else 4)
    assert not is_fpn or (cfg.model.roi_head.mask_head.num_classes, cfg.model.rpn_head.get('num_classes')) == (2, None)
    assert all(head.num_classes == 4 for head in _dense_heads(cfg))
    files = {evaluator.type.split('.')[-1]: evaluator.ann_file for evaluator in cfg.val_evaluator}
    assert files['CocoMetric'] == f'{(tmp_path / "out").resolve()}/annotations/val.json'
    assert files.get('CocoPanopticMetric') in (f'{(tmp_path / "out").resolve()}/annotations/panoptic_val.json', None)
    assert ('CocoPanopticMetric' in files) == ('-boxes_' not in name)


def _dense_heads(cfg):
    return ((cfg.model.get('training_aids') or {}).get('dense') or {}).get('heads', {}).values()


def test_wrapped_data_sets_and_evaluators_without_data(tmp_path, folder):
    converted(folder, tmp_path / 'out')
    base = ROOT / 'configs/small/panoptic-local-detr_r18-half_1xb2-40e_coco320-panoptic.py'
    (tmp_path / 'wrapped.py').write_text(
        f"""_base_ = {str(base)!r}
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=_base_.train_dataloader.dataset))
val_evaluator = _base_.val_evaluator + [dict(type='DumpDetResults', out_file_path='dump.pkl', backend_args={{'map': {{'./a': '{{b'}}}})]
"""
    )
    (tmp_path / 'config.py').write_text(config_for_dataset(tmp_path / 'wrapped.py', tmp_path / 'out'))
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.num_stuff_classes == 2 and 'ann_file' not in cfg.train_dataloader.dataset
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'annotations/panoptic_train.json'
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 3
    assert cfg.val_evaluator[2] == dict(type='DumpDetResults', out_file_path='dump.pkl', backend_args={'map': {'./a': '{b'}})
    (tmp_path / 'several.py').write_text(
        f"""_base_ = {str(ROOT / 'configs/small/local-detr_r18-half_1xb2-12e_coco320.py')!r}
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[_base_.train_dataloader.dataset] * 2))
"""
    )
    with pytest.raises(ValueError, match=r'several.py has several data sets in train_dataloader \(ConcatDataset\)'):
        config_for_dataset(tmp_path / 'several.py', tmp_path / 'out')


def test_a_folder_of_pngs_alone_does_not_make_a_panoptic_config():
    """Detectors with a branch for stuff have one too."""
    cfg = Config.fromfile(ROOT / 'configs/small/local-detr_r18-half_1xb2-12e_coco320.py')
    cfg.train_dataloader.dataset.data_prefix.seg = 'stuff/'
    assert not trains_on_segments(cfg)
    cfg.train_dataloader = None
    assert not trains_on_segments(cfg)


def test_configs_for_boxes_read_the_things(tmp_path, folder):
    converted(folder, tmp_path / 'out')
    (tmp_path / 'config.py').write_text(
        config_for_dataset(ROOT / 'configs/small/local-detr_r18-half_1xb2-12e_coco320.py', tmp_path / 'out')
    )
    cfg = Config.fromfile(tmp_path / 'config.py')
    dataset = DATASETS.build(cfg.train_dataloader.dataset | dict(pipeline=[]))
    assert dataset.metainfo['classes'] == ('cat', 'dog') and cfg.model.bbox_head.num_classes == 2


def test_instance_segmentation_of_things_alone_can_be_built(tmp_path, folder):
    """A panoptic detector without stuff, on data with masks: all of its numbers of classes are the data's."""
    converted(folder, tmp_path / 'out')
    base = ROOT / 'configs/panoptic_detr/panoptic-detr_r50_8xb2-1x_coco.py'
    loader = "dict(_delete_=True, batch_size=2, dataset=dict(type='mmdet_detr_plugin.StrictCocoDataset', pipeline=[]))"
    evaluator = "[dict(type='mmdet.CocoMetric', ann_file='', metric=['bbox', 'segm'])]"
    lines = [f'_base_ = {str(base)!r}', 'model = dict(num_stuff_classes=0, num_things_classes=80, bbox_head=dict(num_classes=80))']
    lines += [f'{split}_dataloader = {loader}' for split in ('train', 'val', 'test')] + [
        f'{split}_evaluator = {evaluator}' for split in ('val', 'test')
    ]
    (tmp_path / 'config.py').write_text('\n'.join(lines))
    (tmp_path / 'mine.py').write_text(config_for_dataset(tmp_path / 'config.py', tmp_path / 'out'))
    model = Config.fromfile(tmp_path / 'mine.py').model
    assert (model.num_things_classes, model.num_stuff_classes, model.bbox_head.num_classes) == (2, 0, 2)
    model.backbone.init_cfg = None
    MODELS.build(model)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ('model = dict(num_stuff_classes=0)', 'has no stuff .*the data set 2 classes of it'),
        ('model = dict(bbox_head=dict(num_classes=6))', 'num_classes=6 in its model; expected 4 .* or 7'),
        ('model = dict(num_stuff_classes=None)', 'no num_things_classes and num_stuff_classes'),
    ],
)
def test_numbers_of_classes_that_do_not_fit_each_other(tmp_path, folder, changes, message):
    converted(folder, tmp_path / 'out')
    base = ROOT / 'configs/shapes/panoptic-local-detr_r18-half_1xb4-10e_shapes-panoptic.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {str(base)!r}\n{changes}\n')
    with pytest.raises(ValueError, match=message):
        config_for_dataset(tmp_path / 'config.py', tmp_path / 'out')


def test_comparison_and_doctor_convert_the_segments(tmp_path, folder):
    names = ['panoptic-local-detr_r18-half_1xb2-40e_coco320-panoptic', 'panoptic-fpn_r18-half_fpn_1xb2-40e_coco320-panoptic']
    models = load_models(names, folder, work_dir=tmp_path / 'compare')
    assert all(model.cfg.train_dataloader.dataset.ann_file == 'annotations/panoptic_train.json' for model in models)
    cfg, findings = config_for_folder(folder, tmp_path / 'doctor', Path(names[0]))
    assert cfg.model.num_stuff_classes == 2 and not findings


def test_converted_shapes_are_the_shapes(tmp_path):
    """Through the file that is written, every image has the masks, boxes, labels and map that it had."""
    for split, count in (('train', 3), ('test', 2)):
        write_split(tmp_path / 'shapes', 0, split, count)
    before = Config.fromfile(ROOT / 'configs/shapes/panoptic-local-detr_r18-half_1xb4-10e_shapes-panoptic.py')
    converted(tmp_path / 'shapes', tmp_path / 'out')
    (tmp_path / 'config.py').write_text(config_for_dataset(Path(before.filename), tmp_path / 'out'))
    after = Config.fromfile(tmp_path / 'config.py')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmdet_detr_plugin.LoadPanopticAnnotations')]
    one = DATASETS.build(before.train_dataloader.dataset | dict(pipeline=pipeline, data_root=str(tmp_path / 'shapes')))
    other = DATASETS.build(after.train_dataloader.dataset | dict(pipeline=pipeline))
    assert one.metainfo['classes'] == other.metainfo['classes'] and len(one) == len(other) == 3
    for number in range(3):
        left, right = one[number], other[number]
        np.testing.assert_array_equal(left['img'], right['img'])
        np.testing.assert_array_equal(left['gt_seg_map'], right['gt_seg_map'])
        np.testing.assert_array_equal(left['gt_masks'].masks, right['gt_masks'].masks)
        np.testing.assert_array_equal(left['gt_bboxes_labels'], right['gt_bboxes_labels'])
        np.testing.assert_array_equal(left['gt_bboxes'].numpy(), right['gt_bboxes'].numpy())


def test_coco128_has_its_segments(shared_data):
    records = with_splits(read_dataset(shared_data / 'coco128', panoptic=True))
    assert (records.layout, len(records.classes), len(records.stuff)) == ('COCO panoptic', 133, 53) and not records.notes
    assert [sum(image.split == split for image in records.images) for split in ('train', 'val')] == [100, 100]


def test_command(tmp_path, folder):
    out = tmp_path / 'out'
    command = [sys.executable, 'tools/convert_dataset.py', folder, '--panoptic', '--out', out]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'COCO panoptic data set with 4 classes' in printed and 'nothing was left out' in printed
    assert f'{out}/annotations/panoptic_train.json' in printed
