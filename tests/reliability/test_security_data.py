"""No data set, archive or exported file runs code, writes outside of its folder or fills the memory: real attack files, each refused."""

import json
import pickle
import resource
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS

from mmdet_detr_plugin.datasets.conversion import with_splits, write_coco
from mmdet_detr_plugin.datasets.readers import read_dataset
from mmdet_detr_plugin.files import write_atomically
from mmdet_detr_plugin.preflight.annotations import read_annotations

from ..conftest import ROOT
from ..datasets.test_conversion import make_coco, make_images, make_voc, make_yolo
from .attacks import Code, alias_bomb, laughs, merge_bomb

XML_REFUSED = 'XML in UTF-16, with a document type or with entities is refused'


@pytest.fixture(autouse=True)
def bounded():
    """Every attack must be refused in seconds and in little memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20  # KiB


@pytest.fixture
def mark(tmp_path):
    path = tmp_path / 'ran'
    yield path
    assert not path.exists(), 'the code in the file was executed'


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob('*'))}


def strict(tmp_path: Path, **options) -> dict:
    return dict(
        type='mmdet_detr_plugin.StrictCocoDataset',
        data_root=str(tmp_path),
        ann_file='labels.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
        filter_cfg=None,
        pipeline=[],
        **options,
    )


def edit(tmp_path: Path, change) -> None:
    content = json.loads((tmp_path / 'labels.json').read_text())
    change(content)
    (tmp_path / 'labels.json').write_text(json.dumps(content))


@pytest.mark.parametrize('suffix', ['.pkl', '.pickle', '.PKL', '.yaml'])
def test_proposals_that_run_code_are_not_opened(suffix, tmp_path, mark):
    make_coco(tmp_path)
    raw = f'!!python/object/apply:os.system ["touch {mark}"]'.encode() if suffix == '.yaml' else pickle.dumps(Code(mark))
    (tmp_path / f'proposals{suffix}').write_bytes(raw)
    with pytest.raises(ValueError, match='proposal_file .* can run code when mmengine reads it, and was not opened; expected JSON'):
        DATASETS.build(strict(tmp_path, proposal_file=f'proposals{suffix}'))


def test_annotations_that_run_code_are_not_opened(tmp_path, mark):
    (tmp_path / 'labels.pkl').write_bytes(pickle.dumps(Code(mark)))
    with pytest.raises(ValueError, match=r'labels\.pkl.*is not a COCO JSON|labels\.pkl.*not a COCO JSON'):
        DATASETS.build({**strict(tmp_path), 'ann_file': 'labels.pkl'})
    inner = dict(type='mmdet.BaseDetDataset', ann_file=str(tmp_path / 'labels.pkl'), pipeline=[])
    repeated = dict(type='mmengine.RepeatDataset', times=2, dataset=dict(type='mmengine.ConcatDataset', datasets=[inner]))
    for dataset in (inner, repeated):
        with pytest.raises(ValueError, match=r'ann_file .*labels\.pkl.* can run code'):
            DATASETS.build(dict(type='mmdet_detr_plugin.SeededDataset', dataset=dataset))


DEEP = dict(lists='[' * 100_000, objects='{"images":' * 100_000, digits='{"images": ' + '9' * 10_000 + '}')


@pytest.mark.parametrize('text', DEEP.values(), ids=DEEP)
def test_deep_and_long_json_is_refused(text, tmp_path):
    make_images(tmp_path / 'images')
    (tmp_path / 'labels.json').write_text(text)
    with pytest.raises(ValueError, match='has no layout known here'):
        read_dataset(tmp_path)
    with pytest.raises(ValueError, match=r'labels\.json'):
        DATASETS.build(strict(tmp_path))
    with pytest.raises(ValueError, match=r'labels\.json'):
        read_annotations(tmp_path / 'labels.json')


def test_numbers_beyond_any_image_are_left_out(tmp_path):
    make_coco(tmp_path)
    text = (tmp_path / 'labels.json').read_text()
    (tmp_path / 'labels.json').write_text(text.replace('[10, 20, 30, 40]', f'[1e400, 20, {"9" * 4000}, 40]'))
    assert 'annotation without a box of four numbers' in read_dataset(tmp_path).notes


LEAVING = ['../secret.png', '/etc/passwd', '..\\secret.png', 'images/../../secret.png', 'http://localhost/a.png', 's3://bucket/a.png']
ODD = ['.' * 300 + '/a.png', 'x' * 5000, 'a\0.png', '\x1b]0;owned\x07.png', '\ud800.png']


@pytest.mark.parametrize('name', [*LEAVING, *ODD], ids=range(len(LEAVING) + len(ODD)))
def test_file_names_of_coco_stay_inside(name, tmp_path):
    make_coco(tmp_path / 'src')
    make_images(tmp_path, ['secret.png'])
    edit(tmp_path / 'src', lambda content: content['images'][0].update(file_name=name))
    records = read_dataset(tmp_path / 'src')
    assert [image.path.name for image in records.images] == ['b.png']
    text = next(items[0] for items in records.notes.values())
    assert text.isprintable(), 'a terminal would act on it'
    records.images = records.images * 2  # a split needs two
    write_coco(with_splits(records), tmp_path / 'out', tmp_path / 'src')
    written = {path for path in tree(tmp_path) if not path.startswith('src')} - {'secret.png'}
    assert written == {'out', 'out/annotations', 'out/annotations/train.json', 'out/annotations/val.json'}


@pytest.mark.parametrize('name', ['http://localhost/a.png', 's3://bucket/a.png', 'a\0.png', '', 7], ids=range(5))
def test_training_asks_no_other_machine_for_images(name, tmp_path):
    make_coco(tmp_path)
    edit(tmp_path, lambda content: content['images'][0].update(file_name=name))
    with pytest.raises(ValueError, match=r'(?s)labels\.json.*file_name'):
        DATASETS.build(strict(tmp_path))


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'])
def test_entities_do_not_expand_in_any_encoding(encoding, tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'Annotations/a.xml').write_bytes(laughs().encode(encoding))
    records = read_dataset(tmp_path)
    assert XML_REFUSED in records.notes and [image.path.name for image in records.images] == ['b.png']


@pytest.mark.parametrize('encoding', ['cp037', 'utf-7', 'shift_jis', 'nonsense'])
def test_encodings_that_would_hide_a_document_type_are_refused(encoding, tmp_path):
    make_voc(tmp_path)
    head, body = f'<?xml version="1.0" encoding="{encoding}"?>'.encode(), laughs().partition('?>')[2]
    hidden = body.replace('<', '+ADw-').encode() if encoding == 'utf-7' else body.encode('cp037' if encoding == 'cp037' else 'ascii')
    (tmp_path / 'Annotations/a.xml').write_bytes(head + hidden)
    records = read_dataset(tmp_path)
    assert [image.path.name for image in records.images] == ['b.png'] and {XML_REFUSED, 'XML not readable'} & set(records.notes)


def test_external_entities_are_not_fetched(tmp_path):
    make_voc(tmp_path)
    (tmp_path / 'secret').write_text('dog')
    for target in ((tmp_path / 'secret').as_uri(), 'http://127.0.0.1:9/x'):
        declared = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{target}">]>'
        plain = (tmp_path / 'Annotations/b.xml').read_text()
        (tmp_path / 'Annotations/a.xml').write_text(declared + plain.replace('dog', '&e;'))
        records = read_dataset(tmp_path)
        assert XML_REFUSED in records.notes and records.class_counts() == {'dog': 1}


def test_deep_xml_and_huge_attributes_do_no_harm(tmp_path):
    make_voc(tmp_path)
    for text in ('<a>' * 100_000 + '</a>' * 100_000, f'<annotation x="{"y" * 10**7}"/>'):
        (tmp_path / 'Annotations/a.xml').write_text(text)
        assert len(read_dataset(tmp_path).images) == 2


@pytest.mark.parametrize('text', [alias_bomb(), merge_bomb()], ids=['aliases', 'merges'])
def test_yaml_aliases_do_not_expand(text, tmp_path):
    make_yolo(tmp_path, text)
    with pytest.raises(ValueError, match=r'data\.yaml is not valid YAML: aliases .* are not taken'):
        read_dataset(tmp_path)


TAGS = dict(
    apply='!!python/object/apply:os.system ["touch MARK"]',
    new='!!python/object/new:os.system [touch MARK]',
    name='!!python/name:os.system',
    depth='[' * 50_000,
)


@pytest.mark.parametrize('line', TAGS.values(), ids=TAGS)
def test_yaml_tags_and_depth_are_refused(line, tmp_path, mark):
    make_yolo(tmp_path, f'names: [cat, dog]\ntrain: images\nextra: {line.replace("MARK", str(mark))}\n')
    with pytest.raises(ValueError, match=r'data\.yaml is not valid YAML'):
        read_dataset(tmp_path)


def test_class_numbers_of_any_size_take_no_memory(tmp_path):
    make_yolo(tmp_path, 'names: {0: cat, 999999999999: dog}\nnc: 1000000000\ntrain: images\n')
    assert read_dataset(tmp_path).class_counts() == {'cat': 1}


def test_annotation_file_of_an_image_larger_than_any_real_one_is_left_out(tmp_path):
    make_yolo(tmp_path)
    line = '0 0.5 0.5 0.5 0.5\n'
    (tmp_path / 'labels/a.txt').write_text(line * (2 * 10**6))
    records = read_dataset(tmp_path)
    assert [image.path.name for image in records.images] == ['b.png']
    assert 'annotation file of one image larger than 32 MiB (left out)' in records.notes
    make_voc(tmp_path / 'voc')
    with open(tmp_path / 'voc/Annotations/a.xml', 'r+b') as file:
        file.truncate(33 << 20)
    assert 'annotation file of one image larger than 32 MiB (left out)' in read_dataset(tmp_path / 'voc').notes


def test_nothing_is_written_through_links(tmp_path):
    """A folder that came from elsewhere may hold links where temporary files and annotations go."""
    (tmp_path / 'victim').write_text('mine')
    make_coco(tmp_path / 'src')
    (tmp_path / 'src/annotations').mkdir()
    for name in ('train.json.tmp', 'val.json.tmp'):
        (tmp_path / 'src/annotations' / name).symlink_to(tmp_path / 'victim')
    write_coco(with_splits(read_dataset(tmp_path / 'src')), tmp_path / 'src', tmp_path / 'src')
    (tmp_path / 'there.json').symlink_to(tmp_path / 'victim')
    write_atomically(b'other', tmp_path / 'there.json')
    assert (tmp_path / 'victim').read_text() == 'mine'
    make_coco(tmp_path / 'other')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'other/annotations').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match='is a link out of .*other, where nothing is written'):
        write_coco(with_splits(read_dataset(tmp_path / 'other')), tmp_path / 'other', tmp_path / 'other')
    assert not list((tmp_path / 'elsewhere').iterdir())


@pytest.mark.parametrize('tool, count', [('predict.py', 5), ('visualize_attention.py', 1)])
def test_outputs_named_after_inputs_stay_in_their_folder(tool, count, tmp_path, monkeypatch):
    from mmengine.config import Config

    from mmdet_detr_plugin.prediction.trained_model import load_model

    config = ROOT / 'configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py'
    torch.save(dict(state_dict=load_model(Config.fromfile(config), None, 'cpu').state_dict()), tmp_path / 'weights.pth')
    make_images(tmp_path / 'in')
    names = ['...png', '.. .png', 'a\\..\\b.png', '=1+1.png', '<b>.png'][:count]
    for name in names:
        (tmp_path / 'in' / name).write_bytes((tmp_path / 'in/a.png').read_bytes())
    before = set(tree(tmp_path))
    inputs = [str(tmp_path / 'in' / name) for name in names]
    monkeypatch.setattr(sys, 'argv', [tool, str(config), str(tmp_path / 'weights.pth'), *inputs, '--out', str(tmp_path / 'x/out')])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    written = set(tree(tmp_path)) - before
    assert len(written) > len(names) and all(path == 'x' or path == 'x/out' or path.startswith('x/out/') for path in written)


def test_a_runtime_that_lets_models_read_files_anywhere_is_refused(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    from mmdet_detr_plugin.deployment import init_detector

    monkeypatch.setattr(onnxruntime, '__version__', '1.23.2')
    with pytest.raises(ImportError, match=r'onnxruntime 1\.23\.2 lets an ONNX file read files anywhere; 1\.24 or later'):
        init_detector(tmp_path / 'm.onnx')


@pytest.mark.parametrize('location', ['../secret.bin', 'ABSOLUTE', 'link.bin'])
def test_exported_files_read_nothing_outside_of_their_folder(location, tmp_path):
    onnx = pytest.importorskip('onnx')
    from mmdet_detr_plugin.deployment import init_detector

    (tmp_path / 'secret.bin').write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'link.bin').symlink_to(tmp_path / 'secret.bin')
    tensor = onnx.TensorProto(name='w', data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (('location', str(tmp_path / 'secret.bin') if location == 'ABSOLUTE' else location), ('length', '16')):
        tensor.external_data.add(key=key, value=value)
    output = onnx.helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [4])
    graph = onnx.helper.make_graph([onnx.helper.make_node('Identity', ['w'], ['y'])], 'g', [], [output], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    (tmp_path / 'model' / 'm.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r'm\.onnx is no ONNX file that onnxruntime can load'):
        init_detector(tmp_path / 'model' / 'm.onnx')
