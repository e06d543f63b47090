"""Data sets and checkpoints of any content: read, or refused in words that name the file; never another error, never a hang."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import DATASETS

from mmdet_detr_plugin.checkpoints import conversion
from mmdet_detr_plugin.checkpoints.convert_file import read_classes
from mmdet_detr_plugin.checkpoints.hf_files import classes_of
from mmdet_detr_plugin.checkpoints.reading import classes_in, read_checkpoint, weights_of
from mmdet_detr_plugin.datasets.conversion import check_class_name, with_splits, write_coco
from mmdet_detr_plugin.datasets.panoptic.segment_ids import encode_png
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.deployment.description import FORMAT, Description
from mmdet_detr_plugin.preflight.annotations import read_annotations

from ..checkpoints import layouts
from .fuzzing import NAMES, VALUES, damaged, fuzz, json_text, mutated, refused_or

SIZE = (40, 30)  # width, height
CLASSES = ('cat', 'dog')
IMAGES = [dict(id=i, file_name=f'{i}.png', width=SIZE[0], height=SIZE[1]) for i in range(3)]
BOXES = [dict(id=i, image_id=i % 3, category_id=1 + i % 2, bbox=[2 * i, i, 9, 8.5], area=76.5, iscrowd=0) for i in range(5)]
COCO = dict(info={}, images=IMAGES, annotations=BOXES, categories=[dict(id=1 + i, name=name) for i, name in enumerate(CLASSES)])
SEGMENTS = [dict(id=i, category_id=1 + i % 2, bbox=[0, 0, 9, 9], area=81, iscrowd=0) for i in (1, 2)]
PANOPTIC = dict(
    images=IMAGES,
    annotations=[dict(image_id=i, file_name=f'{i}.png', segments_info=SEGMENTS) for i in range(3)],
    categories=[dict(id=1 + i, name=name, isthing=1 - i) for i, name in enumerate(CLASSES)],
)
YAML = dict(path='.', names=dict(enumerate(CLASSES)), train='images', val=['images'], nc=2)
TAGGED = [
    *('&a [*a]', '!!python/object/apply:os.getpid []', '2001-99-99', '!!binary "x"', '<<: {a: 1}', '? [1]\n: 2', '0x' + 'f' * 9000),
    *('1:2:3', '~'),
]
DIGITS = '9' * 5000
WORDS = st.sampled_from(['0', '1', '2', '-1', '0.5', '0.1', '1.5', 'nan', 'inf', '-inf', '1e400', DIGITS, 'x', '1_0', '\u0663', '#', '\0'])
XML_TEXTS = st.sampled_from(
    ['1', '5', '20.5', '-3', '0', '', 'nan', 'inf', '1e400', DIGITS, 'cat', '../../a', 'x' * 5000, '&amp;', '&x;', '<a>', '{{']
)
LAYOUTS = st.sampled_from(['coco', 'voc', 'yolo'])
ENCODINGS = st.sampled_from(['utf-8', 'utf-16', 'utf-16-le', 'utf-32', 'utf-7', 'cp037', 'latin-1'])
METADATA = dict(
    resize=dict(scale=[160, 120], keep_ratio=True),
    mean=[1.0, 2.0, 3.0],
    std=[1.0, 1.0, 1.0],
    channels='RGB',
    pad_value=0,
    pad_size_divisor=1,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Iterator[Path]:
    """Images for every case; annotations are written anew for each, without waiting for the disk."""
    root = tmp_path_factory.mktemp('fuzzing')
    for layout in ('coco', 'voc', 'yolo', 'panoptic'):
        (root / layout / 'images').mkdir(parents=True)
        for image in IMAGES:
            cv2.imwrite(str(root / layout / 'images' / image['file_name']), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    (root / 'panoptic' / 'segments').mkdir()
    for image in IMAGES:
        (root / 'panoptic' / 'segments' / image['file_name']).write_bytes(encode_png(np.indices((SIZE[1], SIZE[0]))[0] // 10))
    (root / 'voc' / 'Annotations').mkdir()
    (root / 'yolo' / 'labels').mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr('os.fsync', lambda descriptor: None)
        yield root


def check_read(source: Path, *names: str, panoptic: bool = False) -> None:
    """Read, converted and valid; or refused."""
    records = refused_or(lambda: read_dataset(source, panoptic), *names, str(source))
    if records is None:
        return
    for image in records.images:
        for box in image.boxes:
            assert box.class_name in records.classes and round(box.w, 3) >= 1 and round(box.h, 3) >= 1
            assert 0 <= box.x <= box.x + box.w <= image.width + 1e-6 and 0 <= box.y <= box.y + box.h <= image.height + 1e-6
            assert box.area is None or 0 < box.area <= image.width * image.height
    assert all(text.isprintable() for items in records.notes.values() for text in items)
    files = refused_or(lambda: write_coco(with_splits(records), source.parent / 'out', source), 'class name', 'training and validation')
    for path in files or ():
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f'{name} was written'))


@fuzz(0.12)
@given(content=mutated(COCO))
def test_fuzzed_coco_entries(folder, content):
    (folder / 'coco' / 'labels.json').write_text(json_text(content))
    refused_or(lambda: read_annotations(folder / 'coco' / 'labels.json'), 'labels.json')
    check_read(folder / 'coco', 'labels.json')


@fuzz(0.06)
@given(raw=damaged(json.dumps(COCO).encode()))
def test_fuzzed_coco_bytes(folder, raw):
    (folder / 'coco' / 'labels.json').write_bytes(raw)
    check_read(folder / 'coco', 'labels.json')


@fuzz(0.06)
@given(content=mutated(PANOPTIC))
def test_fuzzed_panoptic_entries(folder, content):
    (folder / 'panoptic' / 'segments.json').write_text(json_text(content))
    check_read(folder / 'panoptic', 'segments.json', panoptic=True)


@fuzz(0.08)
@given(texts=st.lists(XML_TEXTS, min_size=9, max_size=9))
def test_fuzzed_voc_texts(folder, texts):
    name, width, height, label, difficult, *corners = texts
    sides = ''.join(f'<{key}>{value}</{key}>' for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners))
    (folder / 'voc' / 'Annotations' / '0.xml').write_text(
        f'<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size><object><name>{label}</name>'
        f'<difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object></annotation>'
    )
    check_read(folder / 'voc')


VOC = (
    b'<?xml version="1.0" encoding="utf-8"?><annotation><filename>0.png</filename><size><width>40</width><height>30</height></size>'
    b'<object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>22</ymax></bndbox></object></annotation>'
)


@fuzz(0.08)
@given(raw=damaged(VOC), encoding=ENCODINGS)
def test_fuzzed_voc_bytes(folder, raw, encoding):
    raw = raw if encoding == 'utf-8' else raw.decode('latin-1').encode(encoding, 'replace')
    (folder / 'voc' / 'Annotations' / '0.xml').write_bytes(raw)
    check_read(folder / 'voc')


@fuzz(0.06)
@given(content=mutated(YAML), extra=st.sampled_from(['', *TAGGED]), raw=st.none() | damaged(yaml.safe_dump(YAML).encode()))
def test_fuzzed_yolo_description(folder, content, extra, raw):
    (folder / 'yolo' / 'labels' / '0.txt').write_text('0 0.5 0.5 0.5 0.5\n')
    text = json_text(content)[:-1] + (f', extra: {extra}}}' if extra else '}')  # YAML reads JSON too
    (folder / 'yolo' / 'data.yaml').write_bytes(raw or text.encode('utf-8', 'surrogatepass'))
    check_read(folder / 'yolo', 'data.yaml')


@fuzz(0.08)
@given(lines=st.lists(st.lists(WORDS, max_size=9).map(' '.join), max_size=4), raw=st.none() | st.binary(max_size=60))
def test_fuzzed_yolo_labels(folder, lines, raw):
    (folder / 'yolo' / 'data.yaml').write_text(yaml.safe_dump(YAML))
    (folder / 'yolo' / 'labels' / '0.txt').write_bytes('\n'.join(lines).encode() if raw is None else raw)
    check_read(folder / 'yolo')


def layout_of(records: list, layout: str, root: Path) -> None:
    """The same objects written as COCO, VOC or YOLO; pixels are whole numbers, which all three can hold."""
    if layout == 'coco':
        boxes = [dict(image_id=i, category_id=1 + CLASSES.index(name), bbox=box) for i, items in enumerate(records) for name, *box in items]
        (root / 'labels.json').write_text(json.dumps({**COCO, 'annotations': [dict(box, id=n) for n, box in enumerate(boxes)]}))
    for i, items in enumerate(records):
        if layout == 'voc':
            corners = [(name, dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)) for name, x, y, w, h in items]
            boxes = (''.join(f'<{k}>{v}</{k}>' for k, v in box.items()) for _, box in corners)
            objects = ''.join(f'<object><name>{name}</name><bndbox>{box}</bndbox></object>' for (name, _), box in zip(corners, boxes))
            (root / 'Annotations' / f'{i}.xml').write_text(f'<annotation>{objects}</annotation>')
        if layout == 'yolo':
            lines = (
                f'{CLASSES.index(n)} {(x + w / 2) / SIZE[0]} {(y + h / 2) / SIZE[1]} {w / SIZE[0]} {h / SIZE[1]}' for n, x, y, w, h in items
            )
            (root / 'labels' / f'{i}.txt').write_text('\n'.join(lines))
            (root / 'data.yaml').write_text(yaml.safe_dump({**YAML, 'val': None}))


@st.composite
def objects(draw) -> tuple:
    x, y = draw(st.integers(0, SIZE[0] - 1)), draw(st.integers(0, SIZE[1] - 1))
    return draw(st.sampled_from(CLASSES)), x, y, draw(st.integers(1, SIZE[0] - x)), draw(st.integers(1, SIZE[1] - y))


@fuzz(0.05)
@given(
    records=st.lists(st.lists(objects(), max_size=4), min_size=3, max_size=3).filter(any), layout=st.sampled_from(['coco', 'voc', 'yolo'])
)
def test_fuzzed_records_come_back_from_every_layout(folder, records, layout):
    for file in itertools.chain((folder / 'voc' / 'Annotations').glob('*'), (folder / 'yolo' / 'labels').glob('*')):
        file.unlink()
    layout_of(records, layout, folder / layout)
    files = write_coco(with_splits(read_dataset(folder / layout)), folder / 'out', folder / layout)
    found = {}
    for content in (json.loads(path.read_text()) for path in files):
        names = {item['id']: item['name'] for item in content['categories']}
        for image in content['images']:
            boxes = (item for item in content['annotations'] if item['image_id'] == image['id'])
            found[int(Path(image['file_name']).stem)] = [(names[box['category_id']], *box['bbox']) for box in boxes]
    for index, items in enumerate(map(unique, records)):
        assert [item[0] for item in found[index]] == [item[0] for item in items]
        for got, expected in zip(found[index], items):
            assert got[1:] == pytest.approx(expected[1:], abs=2e-3)


def unique(boxes: list) -> list:
    """A box that is given twice counts once."""
    return [box for number, box in enumerate(boxes) if box not in boxes[:number]]


@fuzz(0.03)
@given(content=mutated(COCO))
def test_fuzzed_training_annotations(folder, content):
    path = folder / 'coco' / 'training.txt'  # not .json: the readers' tests share the folder
    path.write_text(json_text(content))
    config = dict(
        type='mmdet_detr_plugin.StrictCocoDataset', ann_file=str(path), metainfo=dict(classes=CLASSES), filter_cfg=None, pipeline=[]
    )
    dataset = refused_or(lambda: DATASETS.build(config), 'training.txt')
    for index in range(len(dataset) if dataset is not None else 0):
        assert all(0 <= instance['bbox_label'] < len(CLASSES) for instance in dataset.get_data_info(index)['instances'])


@pytest.fixture(scope='module')
def plugin_weights() -> dict[str, torch.Tensor]:
    """All names and shapes of a small DETR, without the memory."""
    official = {name: torch.zeros(1).expand(shape) for name, shape in layouts.official(rows=6).items()}
    return conversion.load(official).state


@fuzz(0.03)
@given(
    kept=mutated(
        dict(
            format='official', variant='', aside={}, counters=[],
            dropped=dict(num_rows=8, rows=[0, 1, 2, 4, 5], dropped=[3, 6], weight=[2, 32], bias=[2], classes=None, source_classes=None),
        )
    ),
    extra=st.dictionaries(NAMES, VALUES, max_size=2),
)  # fmt: skip
def test_fuzzed_entries_of_a_checkpoint(plugin_weights, kept, extra):
    for name in ('weight', 'bias'):  # shapes stand for tensors
        dropped = kept.get('dropped')
        if isinstance(dropped, dict) and isinstance(dropped.get(name), list) and all(type(x) is int and 0 <= x < 99 for x in dropped[name]):
            dropped[name] = torch.ones(dropped[name])
    content = dict(state_dict={**plugin_weights, **extra}, detr_source=kept, meta=dict(dataset_meta=extra))
    refused_or(lambda: classes_in(content, Path('x.pth')), 'x.pth')
    weights = refused_or(lambda: conversion.load(weights_of(content, Path('x.pth')), kept), 'detr_source', 'have no place', 'x.pth')
    if weights is not None:
        refused_or(lambda: conversion.select_classes(weights, None, None), 'rows')


@fuzz(0.03)
@given(data=st.data())
def test_fuzzed_checkpoint_bytes(folder, data):
    path = folder / 'weights.pth'
    legacy = data.draw(st.booleans())
    torch.save(dict(state_dict=dict(a=torch.ones(3)), meta=dict(epoch=1)), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    content = refused_or(lambda: read_checkpoint(path), 'weights.pth')
    assert content is None or isinstance(content, dict)


@fuzz(0.03)
@given(content=mutated(dict(id2label={'0': 'cat', '1': 'dog'}, categories=[dict(id=1, name='cat')])))
def test_fuzzed_class_lists(folder, content):
    (folder / 'config.json').write_text(json_text(content))
    assert all(isinstance(name, str) for name in refused_or(lambda: classes_of(folder), 'config.json') or ())
    assert all(isinstance(name, str) for name in refused_or(lambda: read_classes(folder / 'config.json'), 'config.json') or ())


@fuzz(0.03)
@given(preprocess=mutated(METADATA), classes=mutated(list(CLASSES), most=1), most=NAMES | st.sampled_from(['1', '0', '9' * 5000, 'nan']))
def test_fuzzed_metadata_of_an_exported_file(preprocess, classes, most):
    metadata = dict(format=FORMAT, classes=json_text(classes), preprocess=json_text(preprocess), max_per_img=most, precision='fp32')
    found = refused_or(lambda: Description.from_metadata(metadata, 'x.onnx'), 'x.onnx')
    assert found is None or (found.max_per_img >= 1 and all(isinstance(name, str) for name in found.classes))


@fuzz(0.02)
@given(name=st.text() | NAMES)
def test_fuzzed_class_names_in_a_config(name):
    if refused_or(lambda: check_class_name(name), 'class name') is None and '{{' not in name and name.isprintable():
        from mmdet_detr_plugin.datasets.data_configs import _literal

        literal = _literal((name,))
        assert eval(literal, {'__builtins__': {}}) == (name,) and '{{' not in literal
