"""Exported detectors compute what PyTorch computes, padded batches included."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_detr_plugin.config_files import config_path
from mmdet_detr_plugin.deployment.check import Agreement
from mmdet_detr_plugin.deployment.export import export_onnx
from mmdet_detr_plugin.deployment.exportable import export_program
from mmdet_detr_plugin.deployment.runtime import Detections, OnnxDetector
from mmdet_detr_plugin.models import DETR, PanopticLocalDETR

from ..builders import make_batch
from .conftest import DETECTORS, random_detector

BATCHES = {
    'one image': [(97, 130)],
    'two images': [(128, 128), (70, 110)],
    'five images': [(64, 200), (90, 33), (129, 161), (50, 50), (80, 190)],
    'one cell': [(26, 20), (30, 31)],
}


@torch.no_grad()
def expected(detector, batch: dict) -> tuple[torch.Tensor, ...]:
    """Boxes as fractions of the images, scores and labels, in mmdet's way: of DETR query by query, of LocalDETR best first. Of panoptic
    models also no-object's probability (of LocalDETR, whether the pair makes no segment, as stuff has queries of its own and a query one
    class), and masks. Stuff follows.
    """
    inputs, samples = batch['batch_inputs'], batch['batch_data_samples']
    if isinstance(detector, DETR):
        logits, boxes, *masks = detector(inputs, samples, mode='tensor')
        probability = logits[-1].softmax(-1)
        scores, labels = probability[..., :-1].max(-1)
        return bbox_cxcywh_to_xyxy(boxes[-1]).clamp(0, 1), scores, labels, *([probability[..., -1], *masks] if masks else [])
    if isinstance(detector, PanopticLocalDETR):
        logits, boxes, masks, presence = detector(inputs, samples, mode='tensor')
        results, queries = detector.bbox_head.ranked(logits, boxes, [sample.metainfo for sample in samples], rescale=False)
        num_queries, num_stuff, things = logits.shape[2], presence.shape[1], detector.num_things_classes
        of_images = []
        for result, sample, of_stuff in zip(results, samples, presence.sigmoid(), strict=True):
            whole = torch.tensor([[0, 0, *sample.img_shape[::-1]]], dtype=torch.float32).expand(num_stuff, 4)
            stuff = dict(bboxes=whole, scores=of_stuff, labels=things + torch.arange(num_stuff))
            for key, value in stuff.items():
                stuff[key] = torch.cat((result[key], value))
            of_images.append(InstanceData(**stuff))
        results = of_images
        queries = torch.cat((queries, (num_queries + torch.arange(num_stuff)).expand(len(queries), -1)), 1)
        is_none = [[query in earlier[:index] for index, query in enumerate(earlier)] for earlier in queries.tolist()]
        is_none = torch.tensor(is_none) | torch.stack([result.labels >= things for result in results])
        is_none[:, -num_stuff:] = False
        others = is_none.float(), torch.stack([mask[query] for mask, query in zip(masks, queries, strict=True)])
    else:
        results, others = [sample.pred_instances for sample in detector.predict(inputs, samples, rescale=False)], ()
    sides = torch.tensor([sample.img_shape[::-1] * 2 for sample in samples])[:, None]
    boxes, scores, labels = (torch.stack([instances[key] for instances in results]) for key in ('bboxes', 'scores', 'labels'))
    return boxes / sides, scores, labels, *others


def sizes_of(batch: dict) -> torch.Tensor:
    return torch.tensor([sample.img_shape for sample in batch['batch_data_samples']])


def assert_equal(found, wanted, tolerance: float = 1e-4) -> None:
    for some, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(some, other, atol=tolerance, rtol=0)


@pytest.mark.parametrize('shapes', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow) if name == 'panoptic LocalDETR' else name for name in DETECTORS]
)
def test_onnx_equals_pytorch(name, shapes, export):
    exported, batch = export(name), make_batch(shapes, [0] * len(shapes))
    found = exported.onnx.forward(batch['batch_inputs'].numpy(), sizes_of(batch).numpy())
    wanted = expected(exported.detector, batch)
    assert wanted[0].std() > 1e-2 and wanted[1].std() > 1e-4  # detections differ
    assert_equal(found, wanted)


def test_sizes_hide_the_padding(export):
    """What lies in the padding does not matter to the transformer: only what convolutions see of it may change anything."""
    exported, batch = export('pre-norm R50-DC5 with learned positions'), make_batch([(64, 64), (128, 192)], [0, 0])
    images = batch['batch_inputs'].numpy()
    masked, unmasked = (exported.onnx.forward(images, np.array(sizes))[1] for sizes in ([[64, 64], [128, 192]], [[128, 192]] * 2))
    assert np.abs(masked[0] - unmasked[0]).max() > 1e-3
    np.testing.assert_allclose(masked[1], unmasked[1], atol=1e-6)


def test_half_precision_and_simplified_file_is_close_and_half_the_size(export):
    import onnx

    name = 'post-norm R18 with reference points'
    full, half = export(name), export(name, half=True, simplify=True)
    assert half.file.stat().st_size < 0.65 * full.file.stat().st_size
    assert len(onnx.load(half.file).graph.node) < len(onnx.load(full.file).graph.node)
    assert half.onnx.description.precision == 'fp16'
    batch = make_batch(BATCHES['five images'], [0] * 5)
    inputs = batch['batch_inputs'].numpy(), sizes_of(batch).numpy()
    found, wanted = half.onnx.forward(*inputs), full.onnx.forward(*inputs)
    assert found[0].dtype == found[1].dtype == np.float32
    assert_equal(found[:2], wanted[:2], 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['panoptic R18', 'panoptic LocalDETR'])
def test_masks_in_half_precision_are_close(name, export):
    full, half = export(name), export(name, half=True)
    batch = make_batch(BATCHES['one image'], [0])
    inputs = batch['batch_inputs'].numpy(), sizes_of(batch).numpy()
    found, wanted = half.onnx.forward(*inputs), full.onnx.forward(*inputs)
    assert found[4].dtype == np.float32 and found[4].shape == wanted[4].shape
    # rounding may change which of two nearly equal queries comes first, and with it their rows
    same = np.abs(found[0] - wanted[0]).max(-1) < 2e-2
    assert same.mean() > 0.8 and ((found[4] > 0) == (wanted[4] > 0))[same].mean() > 0.97


@pytest.mark.parametrize('name', ['post-norm R18 with reference points', pytest.param('LocalDETR', marks=pytest.mark.slow)])
def test_torch_export_runs_at_other_sizes(name):
    detector = random_detector(DETECTORS[name])
    program = export_program(detector).module()
    for shapes in BATCHES['one image'], BATCHES['five images']:
        batch = make_batch(shapes, [0] * len(shapes))
        with torch.no_grad():
            assert_equal(program(batch['batch_inputs'], sizes_of(batch)), expected(detector, batch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        ('detr_r50_8xb2-150e_coco', {}),
        ('detr_r50-dc5_8xb2-500e_coco', {}),
        ('detr_r50_8xb2-150e_coco', dict(pre_norm=True)),
        ('detr-aided_r18_8xb2-1x_coco', {}),
        ('detr-demo_r50_8xb2-500e_coco', {}),
        ('local-detr_r18_8xb2-1x_coco', {}),
    ],
)
def test_whole_networks_equal_pytorch(config, changes, tmp_path):
    """The shipped sizes, with images of COCO's."""
    from mmdet_detr_plugin.prediction.trained_model import load_model

    cfg = Config.fromfile(config_path(config))
    cfg.model.neck.update(changes)
    detector = load_model(cfg, None, 'cpu')
    detector.dataset_meta = dict(classes=tuple(str(index) for index in range(detector.bbox_head.num_classes)))
    for name, parameter in detector.named_parameters():
        if 'query_embed' in name or 'fc_cls' in name or 'conv_cls' in name:
            torch.nn.init.normal_(parameter, std=0.5 if isinstance(detector, DETR) else 0.05)
    export_onnx(cfg, detector, tmp_path / 'detector.onnx', simplify=True)
    onnx = OnnxDetector(tmp_path / 'detector.onnx')
    for shapes in ([(480, 640)], [(480, 640), (600, 400)], [(240, 320), (320, 240), (300, 300), (200, 330), (256, 192)]):
        batch = make_batch(shapes, [0] * len(shapes))
        found = onnx.forward(batch['batch_inputs'].numpy(), sizes_of(batch).numpy())
        wanted = expected(detector, batch)
        if isinstance(detector, DETR):
            assert_equal(found, wanted)
            continue
        agreement = Agreement()  # with random weights some of the selected locations are so near that they change places
        for ours, theirs in zip(zip(*map(np.asarray, wanted)), zip(*found)):
            agreement.add(Detections(*ours), Detections(*theirs), (1, 1))
        assert len(agreement.box_differences) > 100 and agreement.beyond(1e-4) <= 0.01 * len(agreement.box_differences)
