"""The runtime without torch: mmdet's pixels, mmdet's call, mmdet's results; and clear errors."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.apis import inference_detector as mmdet_inference
from mmengine.dataset import pseudo_collate
from PIL import Image

from mmdet_detr_plugin.deployment import inference_detector, init_detector
from mmdet_detr_plugin.deployment.preprocessing import collate, prepare, read_image, resized_shape

from ..conftest import ROOT
from ..models.panoptic.builders import THINGS
from .conftest import CLASSES, PIPELINE

NAME = 'post-norm R18 with reference points'


@pytest.fixture(scope='module')
def pixels() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (200, 130), interpolation=cv2.INTER_CUBIC)


def encoded(pixels: np.ndarray, suffix: str = '.png') -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def turned(pixels: np.ndarray, path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(path, exif=exif)


FILES = {
    'colour.png': lambda pixels: encoded(pixels),
    'photo.jpg': lambda pixels: encoded(pixels, '.jpg'),
    'grey.png': lambda pixels: encoded(pixels[..., 0]),
    '16bit.png': lambda pixels: encoded(pixels.astype(np.uint16) * 257),
    'transparent.png': lambda pixels: encoded(np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])),
    'tiny.png': lambda pixels: encoded(pixels[:1, :1]),
    'long.png': lambda pixels: encoded(np.resize(pixels, (50, 10_000, 3))),
    'high.png': lambda pixels: encoded(np.resize(pixels, (1_777, 123, 3))),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, pixels):
    out = tmp_path_factory.mktemp('images')
    for name, make in FILES.items():
        (out / name).write_bytes(make(pixels))
    turned(pixels, out / 'turned.jpg')
    return out


@pytest.mark.parametrize('name', [*FILES, 'turned.jpg'])
def test_inputs_equal_mmdets_bit_for_bit(name, folder, export):
    exported = export(NAME)
    packed = Compose([step for step in PIPELINE if step['type'] != 'LoadAnnotations'])(dict(img_path=str(folder / name), img_id=0))
    theirs = exported.detector.data_preprocessor(pseudo_collate([packed]))
    preprocess = exported.onnx.description.preprocess
    ours, sizes = collate([prepare(read_image(folder / name), preprocess)], preprocess)
    np.testing.assert_array_equal(ours, theirs['inputs'].numpy())
    assert tuple(sizes[0]) == theirs['data_samples'][0].img_shape
    if name == 'turned.jpg':
        assert read_image(folder / name).shape == (200, 130, 3)


def test_resizing_follows_mmcv_at_any_size():
    from mmcv.image.geometric import rescale_size

    generator = np.random.default_rng(0)
    for height, width in generator.integers(20, 3000, (300, 2)).tolist():
        scale = tuple(generator.integers(100, 1400, 2).tolist())
        assert resized_shape(height, width, dict(scale=scale, keep_ratio=True)) == rescale_size((width, height), scale)[::-1]
    assert resized_shape(10, 20, dict(scale=[300, 200], keep_ratio=False)) == (200, 300) and resized_shape(10, 20, None) == (10, 20)
    with pytest.raises(ValueError, match='20000 x 10 pixels would become 160 x 0 .* cut it into pieces'):
        resized_shape(10, 20_000, dict(scale=[160, 120], keep_ratio=True))


@pytest.mark.parametrize('name', [NAME, 'LocalDETR'])
def test_same_call_and_results_as_mmdets_inference(name, folder, export):
    exported = export(name)
    files = [str(folder / name) for name in ('photo.jpg', 'grey.png', 'high.png')]
    theirs = exported.detector
    theirs.cfg = exported.cfg
    for file, ours in zip(files, inference_detector(exported.onnx, files), strict=True):
        expected = mmdet_inference(theirs, file)
        np.testing.assert_allclose(ours.pred_instances.scores, expected.pred_instances.scores.numpy(), atol=1e-4)
        sides = np.array([*expected.ori_shape[::-1]] * 2)
        np.testing.assert_allclose(ours.pred_instances.bboxes / sides, expected.pred_instances.bboxes.numpy() / sides, atol=1e-4)
        np.testing.assert_array_equal(ours.pred_instances.labels, expected.pred_instances.labels.numpy())
        assert (ours.ori_shape, ours.img_shape, ours.img_path) == (expected.ori_shape, expected.img_shape, file)
    assert exported.onnx.dataset_meta['classes'] == CLASSES


def test_batches_keep_the_order_and_one_image_gives_one_result(folder, export, pixels):
    detector = export(NAME).onnx
    images = [pixels, folder / 'photo.jpg', pixels[:50]]
    alone, together = (inference_detector(detector, images, batch_size=size) for size in (1, 3))
    assert [result.ori_shape for result in together] == [(130, 200), (130, 200), (50, 200)]
    np.testing.assert_allclose(alone[0].pred_instances.scores, together[0].pred_instances.scores, atol=1e-3)  # convolutions see padding
    one = inference_detector(detector, pixels)
    np.testing.assert_array_equal(one.pred_instances.bboxes, alone[0].pred_instances.bboxes)
    best = one.pred_instances[one.pred_instances.scores >= one.pred_instances.scores[2]]
    assert len(best) == 3 and best.bboxes.shape == (3, 4)
    assert inference_detector(detector, []) == []


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 5), np.uint8), r'image 1 must be a uint8 array .* got uint8 of shape \(4, 5\)'),
        (np.zeros((4, 5, 3), np.float32), 'image 1 must be .* got float32'),
        (np.zeros((0, 5, 3), np.uint8), 'image 1 must be'),
        ([1, 2], 'image 1 must be .* got list'),
    ],
)
def test_arrays_that_are_no_images_are_named(image, message, export, pixels):
    with pytest.raises(ValueError, match=message):
        inference_detector(export(NAME).onnx, [pixels, image])


def test_bad_files_are_named(tmp_path, export):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    for name in ('text.jpg', 'empty.jpg'):
        with pytest.raises(ValueError, match=f'{name} is no image that OpenCV can read'):
            inference_detector(export(NAME).onnx, tmp_path / name)
    with pytest.raises(FileNotFoundError, match='nowhere.jpg'):
        inference_detector(export(NAME).onnx, tmp_path / 'nowhere.jpg')
    with pytest.raises(FileNotFoundError, match='nowhere.onnx does not exist'):
        init_detector(tmp_path / 'nowhere.onnx')
    with pytest.raises(ValueError, match='text.jpg is no ONNX file that onnxruntime can load'):
        init_detector(tmp_path / 'text.jpg')
    with pytest.raises(ValueError, match="device must be 'cpu', or 'cuda' where onnxruntime-gpu is installed, got 'tpu'"):
        init_detector(export(NAME).file, device='tpu')


def test_file_of_another_exporter_is_refused(tmp_path, export):
    import onnx

    model = onnx.load(export(NAME).file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(ValueError, match='does not come from tools/export_onnx.py'):
        init_detector(tmp_path / 'other.onnx')


def test_file_describes_itself(export):
    import onnx

    model = onnx.load(export(NAME).file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata['classes']) == list(CLASSES) and metadata['precision'] == 'fp32' and metadata['max_per_img'] == '10'
    assert json.loads(metadata['preprocess']) == dict(
        resize=dict(scale=[160, 120], keep_ratio=True),
        mean=pytest.approx([123.675, 116.28, 103.53]),
        std=pytest.approx([58.395, 57.12, 57.375]),
        channels='RGB',
        pad_value=0.0,
        pad_size_divisor=1,
    )
    names = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert names['images'] == ['batch', 3, 'height', 'width'] and names['sizes'] == ['batch', 2]
    assert set(names) == {'images', 'sizes', 'boxes', 'scores', 'labels'}
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'} and not model.functions  # standard operations alone
    assert not {'NonMaxSuppression', 'GridSample'} & {node.op_type for node in model.graph.node}


def test_runs_where_torch_and_mmdet_are_missing(folder, export):
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'mmdet', 'mmcv', 'mmengine', 'scipy', 'pycocotools', 'PIL', 'matplotlib'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from mmdet_detr_plugin.deployment import inference_detector, init_detector
result = inference_detector(init_detector(sys.argv[1]), sys.argv[2])
print(len(result.pred_instances), float(result.pred_instances.scores[0]))
"""
    command = [sys.executable, '-c', program, export(NAME).file, folder / 'photo.jpg']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    count, score = done.stdout.split()
    expected = inference_detector(export(NAME).onnx, folder / 'photo.jpg').pred_instances
    assert int(count) == 10 and float(score) == pytest.approx(float(expected.scores[0]), abs=1e-6)


def without_panoptic(file, out) -> None:
    """As files of models without masks were before they told things and stuff apart."""
    import onnx

    model = onnx.load(file)
    kept = [entry for entry in model.metadata_props if entry.key != 'panoptic']
    assert len(kept) == len(model.metadata_props) - 1
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, out)


def test_stuff_is_no_detection_without_masks_either(folder, export, tmp_path):
    exported = export('panoptic boxes')
    exported.detector.cfg = exported.cfg
    expected = mmdet_inference(exported.detector, str(folder / 'photo.jpg')).pred_instances
    result = inference_detector(exported.onnx, folder / 'photo.jpg')
    found = result.pred_instances
    assert found.labels.tolist() == expected.labels.tolist() and 0 < len(found) < 10 and max(found.labels) < THINGS
    np.testing.assert_allclose(found.bboxes, expected.bboxes.numpy(), atol=1e-2)
    assert found.masks is None and result.pred_panoptic_seg is None
    done = subprocess.run([sys.executable, ROOT / 'tools/run_onnx.py', exported.file, folder / 'photo.jpg'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = found[found.scores >= 0.5]
    assert [row.split()[0] for row in done.stdout.splitlines()] == [CLASSES[label] for label in wanted.labels] != []
    without_panoptic(exported.file, tmp_path / 'before.onnx')
    assert len(inference_detector(init_detector(tmp_path / 'before.onnx'), folder / 'photo.jpg').pred_instances) == 10


def test_copyable_script_is_short_and_gives_the_same_detections(folder, export, tmp_path):
    script = ROOT / 'tools/run_onnx.py'
    lines = script.read_text().splitlines()
    assert len(lines) <= 60 and not [line for line in lines if 'import' in line and ('mmdet' in line or 'torch' in line)]
    done = subprocess.run(
        [sys.executable, script, export(NAME).file, folder / 'high.png', tmp_path / 'drawn.jpg'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = inference_detector(export(NAME).onnx, folder / 'high.png').pred_instances
    expected = expected[expected.scores >= 0.5]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == len(expected) > 0 and [row[0] for row in rows] == [CLASSES[label] for label in expected.labels]
    np.testing.assert_allclose([[float(x) for x in row[2:]] for row in rows], expected.bboxes, atol=0.06)
    assert cv2.imread(str(tmp_path / 'drawn.jpg')).shape == (1_777, 123, 3)
