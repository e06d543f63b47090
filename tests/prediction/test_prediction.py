"""Predictions are mmdet's own, whatever the input; odd and broken files are handled as documented and stop nothing."""

import copy
import csv
import json
import runpy
import subprocess
import sys
import warnings
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from PIL import Image

from mmdet_detr_plugin.prediction.inputs import Frame, count_frames, find_inputs, read_frames
from mmdet_detr_plugin.prediction.pipeline import inference_steps, steps_from_pixels
from mmdet_detr_plugin.prediction.predictor import Predictor
from mmdet_detr_plugin.prediction.trained_model import load_model
from mmdet_detr_plugin.prediction.writers import PredictionWriter

from ..conftest import ROOT

MODELS = ('local-detr_r18-half_1xb4-10e_shapes', 'faster-rcnn_r18-half_fpn_1xb4-10e_shapes')


def load(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/shapes/{name}.py')


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> dict:
    """Random weights, as files."""
    folder = tmp_path_factory.mktemp('checkpoints')
    found = {}
    for name in MODELS:
        torch.manual_seed(0)
        found[name] = folder / f'{name}.pth'
        torch.save(dict(state_dict=load_model(load(name), None, 'cpu').state_dict()), found[name])
    return found


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def image_of(path) -> Frame:
    (frame,) = read_frames(path)
    return frame


@pytest.mark.parametrize('name', MODELS)
def test_detections_equal_mmdets_inference(name, checkpoints, shapes_dir):
    files = sorted((shapes_dir / 'test').iterdir())[:3]
    cfg = load(name)
    cfg.test_dataloader.dataset.data_root = f'{shapes_dir}/'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = init_detector(cfg, str(checkpoints[name]), device='cpu')
        expected = [inference_detector(theirs, str(file)).pred_instances for file in files]
    found = list(Predictor(cfg, checkpoints[name])(image_of(file) for file in files))
    assert len(found) == 3
    for (frame, sample), instances in zip(found, expected, strict=True):
        assert frame.problem is None and len(instances) > 0
        torch.testing.assert_close(sample.pred_instances.bboxes, instances.bboxes)
        torch.testing.assert_close(sample.pred_instances.scores, instances.scores)


def test_batches_give_what_single_images_give(checkpoints, shapes_dir):
    files = sorted((shapes_dir / 'test').iterdir())
    one, three = (Predictor(load(MODELS[0]), checkpoints[MODELS[0]], batch_size=size) for size in (1, 3))
    for (_, alone), (_, together) in zip(one(map(image_of, files)), three(map(image_of, files)), strict=True):
        torch.testing.assert_close(alone.pred_instances.scores, together.pred_instances.scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('kind', ['SeededDataset', 'ConcatDataset'])
def test_wrapped_test_data_give_the_same_predictions(kind, checkpoints, shapes_dir):
    cfg = load(MODELS[0])
    plain = Predictor(cfg, checkpoints[MODELS[0]])
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type=kind, dataset=dataset) if kind == 'SeededDataset' else dict(type=kind, datasets=[dataset] * 2)
    wrapped = Predictor(cfg, checkpoints[MODELS[0]])
    assert wrapped.classes == plain.classes == ('circle', 'square', 'triangle', 'star')
    file = sorted((shapes_dir / 'test').iterdir())[0]
    ((_, expected),), ((_, found),) = plain([image_of(file)]), wrapped([image_of(file)])
    torch.testing.assert_close(found.pred_instances.bboxes, expected.pred_instances.bboxes)


@pytest.mark.parametrize('settings', [{}, dict(to_float32=True), dict(color_type='color', imdecode_backend=None, backend_args=None)])
def test_pixels_are_those_that_the_pipeline_loads_itself(settings, pixels, tmp_path):
    cv2.imwrite(str(tmp_path / 'image.png'), pixels)
    cfg = load(MODELS[0])
    cfg.test_dataloader.dataset.pipeline[0].update(settings)
    cfg.test_dataloader.dataset.pipeline[2] = dict(type='Resize', scale=(97, 55), keep_ratio=True)  # which rounds pixels that are uint8
    loading, *others = inference_steps(cfg)
    from_file = Compose([loading, *(step | dict(type=f'mmdet.{step["type"]}') for step in others)])
    expected = from_file(dict(img_path=str(tmp_path / 'image.png'), img_id=0))['inputs']
    found = Compose(steps_from_pixels(cfg))(dict(img=image_of(tmp_path / 'image.png').pixels, img_id=0))['inputs']
    assert found.dtype == expected.dtype == (torch.float32 if settings.get('to_float32') else torch.uint8)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(('name', 'value'), [('color_type', 'unchanged'), ('color_type', 'grayscale'), ('imdecode_backend', 'pillow')])
def test_other_ways_to_read_images_are_refused(name, value, checkpoints):
    cfg = load(MODELS[0])
    cfg.test_dataloader.dataset.pipeline[0][name] = value
    with pytest.raises(ValueError, match=f"with color_type='color' and imdecode_backend='cv2', and the test pipeline has .*'{value}'"):
        Predictor(cfg, checkpoints[MODELS[0]])


ODD = {
    'grey.png': lambda pixels: cv2.imencode('.png', pixels[..., 0])[1],
    '16bit.png': lambda pixels: cv2.imencode('.png', pixels.astype(np.uint16) * 257)[1],
    'transparent.png': lambda pixels: cv2.imencode('.png', np.dstack([pixels, np.full((60, 80), 7, np.uint8)]))[1],
    'tiny.png': lambda pixels: cv2.imencode('.png', pixels[:1, :1])[1],
    'long.png': lambda pixels: cv2.imencode('.png', np.resize(pixels, (50, 10_000, 3)))[1],
}


@pytest.mark.parametrize('name', ODD)
def test_odd_images_are_predicted(name, pixels, checkpoints, tmp_path):
    (tmp_path / name).write_bytes(ODD[name](pixels).tobytes())
    frame = image_of(tmp_path / name)
    assert frame.pixels.dtype == np.uint8 and frame.pixels.shape[2] == 3
    if name == '16bit.png':
        np.testing.assert_array_equal(frame.pixels, pixels)
    if name == 'transparent.png':
        np.testing.assert_array_equal(frame.pixels, pixels)
    cfg = load(MODELS[0])
    cfg.test_dataloader.dataset.pipeline[2] = dict(type='Resize', scale=(320, 240), keep_ratio=True)
    ((frame, sample),) = Predictor(cfg, checkpoints[MODELS[0]])([frame])
    height, width = frame.pixels.shape[:2]
    if name == 'long.png':  # 320 x 2 pixels after resizing
        assert sample.img_shape == (2, 320)
    assert frame.problem is None and len(sample.pred_instances) == 50
    assert (sample.pred_instances.bboxes <= torch.tensor([width, height] * 2) + 1e-3).all()


def test_exif_rotation_is_followed(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / 'turned.jpg', exif=exif)
    assert image_of(tmp_path / 'turned.jpg').pixels.shape == (80, 60, 3)


def test_broken_files_are_problems_and_not_the_end(checkpoints, shapes_dir, pixels, tmp_path):
    good = sorted((shapes_dir / 'test').iterdir())[0]
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    (tmp_path / 'missing.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    files = [tmp_path / 'text.jpg', good, tmp_path / 'empty.jpg', tmp_path / 'missing.jpg', good]
    predictor = Predictor(load(MODELS[0]), checkpoints[MODELS[0]], batch_size=3)
    results = list(predictor(map(image_of, files)))
    assert [sample is not None for _, sample in results] == [False, True, False, False, True]
    assert 'no image that OpenCV can read' in results[0][0].problem and 'cannot be read: FileNotFoundError' in results[3][0].problem


def test_image_that_the_network_cannot_take_loses_only_itself(checkpoints, shapes_dir, monkeypatch):
    predictor = Predictor(load(MODELS[0]), checkpoints[MODELS[0]], batch_size=4)
    step, files = predictor.model.test_step, sorted((shapes_dir / 'test').iterdir())[:4]

    def planted(data):
        if any(sample.img_id == 2 for sample in data['data_samples']):
            raise RuntimeError('out of memory')
        return step(data)

    monkeypatch.setattr(predictor.model, 'test_step', planted)
    results = list(predictor(map(image_of, files)))
    assert [sample is None for _, sample in results] == [False, False, True, False]
    assert results[2][0].problem == 'the network failed: RuntimeError: out of memory'


def write_video(path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()


def test_videos_are_read_frame_by_frame_and_truncation_is_reported(tmp_path, monkeypatch):
    write_video(tmp_path / 'whole.avi', 6)
    frames = list(read_frames(tmp_path / 'whole.avi'))
    assert [frame.number for frame in frames] == list(range(6)) and count_frames(tmp_path / 'whole.avi') == 6
    assert frames[0].name.endswith('whole.avi#0') and frames[5].pixels.mean() > 40
    content = (tmp_path / 'whole.avi').read_bytes()
    (tmp_path / 'cut.avi').write_bytes(content[: len(content) // 2])
    (frame,) = read_frames(tmp_path / 'cut.avi')
    assert frame.problem == 'no frame of it could be read'
    monkeypatch.setattr('mmdet_detr_plugin.prediction.inputs.count_frames', lambda path: 9)  # as some containers announce
    *good, last = read_frames(tmp_path / 'whole.avi')
    assert len(good) == 6 and all(frame.problem is None for frame in good)
    assert last.problem.startswith('6 frames could be read, 9 are announced')


def test_inputs_are_files_folders_and_patterns(tmp_path, pixels):
    for name in ('a/1.jpg', 'a/b/2.PNG', 'a/3.txt', 'a/4.mp4', '5.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    names = [
        path.relative_to(tmp_path).as_posix()
        for path in find_inputs([str(tmp_path / 'a'), str(tmp_path / '*.jpg'), str(tmp_path / 'a/1.jpg')])
    ]
    assert names == ['a/1.jpg', 'a/b/2.PNG', 'a/4.mp4', '5.jpg']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no image .*and no video'):
        find_inputs([str(tmp_path / 'empty')])
    with pytest.raises(FileNotFoundError, match='neither a file nor a folder, and as a pattern it fits no file'):
        find_inputs([str(tmp_path / '*.bmp')])


def test_earlier_results_are_no_inputs_unless_named(tmp_path):
    for name in ('mine.jpg', 'out/drawn/mine.jpg', 'out/other.jpg', 'out/predictions.panoptic/1.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    outputs = [tmp_path / 'out/drawn', tmp_path / 'out/predictions.panoptic']

    def names(*inputs):
        return [path.relative_to(tmp_path).as_posix() for path in find_inputs([str(tmp_path / name) for name in inputs], outputs)]

    for search in ('', '**/*.*g'):
        with pytest.warns(UserWarning, match=r'2 files that lie where results go are left out, such as .*drawn/mine\.jpg'):
            assert names(search) == ['mine.jpg', 'out/other.jpg']
    assert names('out/drawn') == names('out/drawn/*.jpg') == names('out/drawn/mine.jpg') == ['out/drawn/mine.jpg']
    with pytest.warns(UserWarning, match='1 files'):
        assert names('', 'out/drawn/mine.jpg') == ['mine.jpg', 'out/other.jpg', 'out/drawn/mine.jpg']
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='all 2 files found lie where results go'):
        names('out/*/*')


def test_nothing_that_is_read_is_replaced(checkpoints, shapes_dir, tmp_path):
    predictor = Predictor(load(MODELS[0]), checkpoints[MODELS[0]])
    path = tmp_path / 'drawn/mine.jpg'
    path.parent.mkdir()
    path.write_bytes(next((shapes_dir / 'test').iterdir()).read_bytes())
    before = path.read_bytes()
    writer = PredictionWriter(tmp_path, predictor.classes, 0.0, inputs=[path])
    for frame, sample in predictor(read_frames(path)):
        writer.add(frame, sample)
    assert path.read_bytes() == before and (tmp_path / 'drawn/mine-2.jpg').is_file()


def test_what_cannot_be_drawn_is_kept_all_the_same(checkpoints, pixels, tmp_path):
    """A name that is too long beside an image of dollars, which matplotlib takes for formulas, and a name that is not UTF-8."""
    predictor = Predictor(load(MODELS[0]), checkpoints[MODELS[0]])
    writer = PredictionWriter(tmp_path, ('a_$x^', 'b', '$', '$$'), 0.0)
    for name in ('x' * 300 + '.png', 'caf\udce9.png'):
        for frame, sample in predictor([Frame(name, Path(name), pixels=pixels)]):
            assert writer.add(frame, sample) == 50
    assert [name[:3] for name, _ in writer.not_drawn] == ['xxx'] and 'too long' in writer.not_drawn[0][1]
    paths = writer.finish()
    assert len(json.loads(paths[0].read_text())['annotations']) == 100
    assert {row['file'][:4] for row in csv.DictReader(paths[1].read_text().splitlines())} == {'xxxx', 'caf\\'}


@pytest.mark.parametrize('rate', [119.963, 29.97, 23.976, 1000.0])
def test_videos_of_any_rate_are_drawn(rate, tmp_path):
    writer = PredictionWriter(tmp_path, ('a',), 0.0)
    frames = tmp_path / 'film.avi'
    video = cv2.VideoWriter(str(frames), cv2.VideoWriter_fourcc(*'MJPG'), rate, (64, 48))
    for _ in range(3):
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    for frame in read_frames(frames):
        writer.add(frame, DetDataSample())
    writer.finish()
    assert writer.not_drawn == [] and count_frames(tmp_path / 'drawn/film.mp4') == 3
    assert cv2.VideoCapture(str(tmp_path / 'drawn/film.mp4')).get(cv2.CAP_PROP_FPS) == pytest.approx(rate, rel=1e-3)


def test_parts_of_a_config_count_as_they_do_in_training(checkpoints, shapes_dir):
    cfg = load(MODELS[0])
    expected = next(iter(Predictor(cfg, checkpoints[MODELS[0]])([image_of(next((shapes_dir / 'test').iterdir()))])))[1]
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    found = next(iter(Predictor(cfg, checkpoints[MODELS[0]])([image_of(next((shapes_dir / 'test').iterdir()))])))[1]
    torch.testing.assert_close(found.pred_instances.scores, expected.pred_instances.scores)
    for device in ('gpu', 'xpu:7'):
        with pytest.raises(ValueError, match=rf"the device '{device}' cannot be used here .*; cpu always can"):
            Predictor(cfg, checkpoints[MODELS[0]], device)


def test_wrong_checkpoint_and_pipeline_are_named(checkpoints, tmp_path):
    with pytest.raises(ValueError, match='local-detr.*does not fit the model of .*faster-rcnn'):
        Predictor(load(MODELS[1]), checkpoints[MODELS[0]])
    with pytest.raises(FileNotFoundError, match='nothing.pth does not exist'):
        Predictor(load(MODELS[1]), tmp_path / 'nothing.pth')
    cfg = load(MODELS[0])
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackDetInputs')]
    with pytest.raises(ValueError, match=r"must start with LoadImageFromFile, got \['PackDetInputs'\]"):
        Predictor(cfg, checkpoints[MODELS[0]])


def test_models_are_loaded_without_training_aids(tmp_path):
    """Whether config and checkpoint have them or not; what else does not fit is refused as ever."""
    aided = load('detr-aided_r18-half_1xb4-10e_shapes')
    plain = copy.deepcopy(aided)
    assert plain.model.pop('training_aids')
    weights = {f'module.{name}': value for name, value in MMDET_MODELS.build(aided.model).state_dict().items()}
    stripped = {name: value for name, value in weights.items() if not name.startswith('module.training_aids.')}
    assert 0 < len(stripped) < len(weights)
    for state in (weights, stripped):
        torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
        for cfg in (aided, plain):
            loaded = load_model(cfg, tmp_path / 'weights.pth', 'cpu').state_dict()
            assert {f'module.{name}' for name in loaded} == set(stripped)
            assert all(torch.equal(value, weights[f'module.{name}']) for name, value in loaded.items())
    assert aided.model.training_aids  # the config is as it was
    torch.save(dict(state_dict=weights | {'module.other.weight': torch.zeros(1)}), tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=r'(?s)does not fit the model .*other\.weight'):
        load_model(aided, tmp_path / 'weights.pth', 'cpu')


def test_every_class_has_a_name_or_nothing_is_predicted(tmp_path):
    """Of weights without names, by the config's data set or its type: COCO's 133 panoptic classes are no 80."""
    cfg = Config.fromfile(ROOT / 'configs/panoptic_detr/panoptic-detr_r50_8xb2-1x_coco.py')
    cfg.model.backbone.depth, cfg.model.neck.in_channels, cfg.model.mask_head.in_channels = 18, 512, [256, 128, 64]
    cfg.model.neck.update(num_encoder_layers=1, num_decoder_layers=1)
    torch.save(dict(state_dict=load_model(cfg, None, 'cpu').state_dict()), tmp_path / 'unnamed.pth')
    predictor = Predictor(cfg, tmp_path / 'unnamed.pth')
    assert predictor.classes == CocoPanopticDataset.METAINFO['classes'] and predictor.num_things_classes == 80
    cfg.test_dataloader.dataset.metainfo = dict(classes=('cat', 'dog'))
    with pytest.raises(ValueError, match=r'the model has 133 classes, but 2 names are known \(cat, dog'):
        Predictor(cfg, tmp_path / 'unnamed.pth')


def test_command_writes_coco_csv_and_drawings(checkpoints, shapes_dir, tmp_path):
    for folder in ('one', 'two'):  # the same name twice
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'image.jpg').write_bytes(sorted((shapes_dir / 'test').iterdir())[0].read_bytes())
    (tmp_path / 'one' / 'broken.jpg').write_text('no image')
    write_video(tmp_path / 'film.avi', 3)
    program = [sys.executable, '-W', 'ignore', ROOT / 'tools/predict.py', MODELS[0], checkpoints[MODELS[0]]]
    inputs = ['one', 'two', 'film.avi']
    done = subprocess.run([*program, *inputs, '--score-thr', '0'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'left out: one/broken.jpg: is no image' in done.stderr and f'{5 * 50} detections of at least 0 in 5 images' in done.stdout
    content = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    assert [image['file_name'] for image in content['images']] == ['one/image.jpg', 'two/image.jpg', *['film.avi'] * 3]
    assert [category['name'] for category in content['categories']] == ['circle', 'square', 'triangle', 'star']
    rows = list(csv.DictReader((tmp_path / 'predictions/predictions.csv').read_text().splitlines()))
    assert (
        len(rows) == len(content['annotations']) == 250 and rows[-1]['frame'] == '2' and rows[0]['class'] in 'circle square triangle star'
    )
    assert float(rows[0]['width']) == content['annotations'][0]['bbox'][2]
    drawn = {path.name for path in (tmp_path / 'predictions/drawn').iterdir()}
    assert drawn == {'image.jpg', 'image-2.jpg', 'film.mp4'} and count_frames(tmp_path / 'predictions/drawn/film.mp4') == 3
    (tmp_path / 'file').touch()
    failed = subprocess.run([*program, 'one', '--out', 'file'], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and 'error: ' in failed.stderr and 'Traceback' not in failed.stderr
    failed = subprocess.run([*program, 'nothing'], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and 'error: nothing is neither a file nor a folder' in failed.stderr


def test_an_interruption_keeps_what_was_found(checkpoints, shapes_dir, tmp_path, monkeypatch, capsys):
    predict = Predictor.__call__

    def interrupted(self, frames):
        yield from islice(predict(self, frames), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, '__call__', interrupted)
    command = ['predict.py', MODELS[0], checkpoints[MODELS[0]], shapes_dir / 'test', '--out', tmp_path / 'out', '--no-drawing']
    monkeypatch.setattr(sys, 'argv', [*map(str, command)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools/predict.py'), run_name='__main__')
    assert end.value.code == 130 and 'interrupted after' in capsys.readouterr().out
    assert len(json.loads((tmp_path / 'out/predictions.json').read_text())['images']) == 2


def test_threshold_holds_for_all_outputs(checkpoints, shapes_dir, tmp_path):
    predictor = Predictor(load(MODELS[0]), checkpoints[MODELS[0]])
    ((frame, sample),) = predictor([image_of(sorted((shapes_dir / 'test').iterdir())[0])])
    middle = float(sample.pred_instances.scores[20])
    writer = PredictionWriter(tmp_path, predictor.classes, middle, draw=False)
    kept = int((sample.pred_instances.scores >= middle).sum())
    assert writer.add(frame, sample) == kept and 20 < kept < 50
    writer.finish()
    assert all(item['score'] >= round(middle, 5) for item in json.loads((tmp_path / 'predictions.json').read_text())['annotations'])
