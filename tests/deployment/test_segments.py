"""Masks and segments of exported files are PyTorch's."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector as mmdet_inference

from mmdet_detr_plugin.datasets.panoptic.segments_as_instances import things_as_instances
from mmdet_detr_plugin.deployment import inference_detector, segments
from mmdet_detr_plugin.deployment.check import check
from mmdet_detr_plugin.models.panoptic import post_processing
from mmdet_detr_plugin.prediction.predictor import Predictor

from ..models.panoptic.builders import STUFF, THINGS
from .conftest import CLASSES

SIZES = [
    segments.Sizes((64, 96), (64, 96), (50, 77)),
    segments.Sizes((64, 96), (61, 70), (244, 281)),
    segments.Sizes((37, 53), (37, 50), (37, 50)),
    segments.Sizes((32, 32), (1, 32), (3, 90)),
]


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('count', [0, 1, 12])
def test_post_processing_equals_pytorchs(sizes, count):
    rng = np.random.default_rng(count)
    shape = -(-sizes.batch[0] // 4), -(-sizes.batch[1] // 4)
    logits = rng.normal(size=(count, *shape)).astype(np.float32)
    labels = rng.integers(0, THINGS + STUFF, count)
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    masks = segments.instance_masks(logits, sizes)
    assert masks.shape == (count, *sizes.ori) and masks.dtype == bool
    wanted = post_processing.instance_masks(tensors[0], sizes.batch, sizes.img, sizes.ori).numpy()
    assert (masks != wanted).mean() < 1e-3 if count else masks.shape == wanted.shape
    seg = segments.panoptic_map(logits, labels, sizes, THINGS, THINGS + STUFF)
    large = post_processing.at_batch_size(tensors[0], sizes.batch, sizes.img)
    np.testing.assert_allclose(segments.at_img_size(logits, sizes), large, atol=1e-5)
    wanted = post_processing.panoptic_map(large, tensors[1], THINGS, THINGS + STUFF, sizes.ori).numpy()
    assert seg.dtype == np.int32 and (seg != wanted).mean() < 1e-3
    assert count < 12 or len(np.unique(seg)) > 4


def agreement(some: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels whose segment is the same one in both, whatever its number: a segment of 4 or 5 pixels, which rounding decides
    about, shifts the numbers of all that follow."""
    counts = np.zeros((some.max() + 1, other.max() + 1), dtype=int)
    np.add.at(counts, (some, other), 1)
    return min(counts.max(0).sum(), counts.max(1).sum()) / some.size


@pytest.mark.parametrize('name', ['panoptic R18', pytest.param('panoptic LocalDETR', marks=pytest.mark.slow)])
def test_results_on_files_are_those_of_mmdets_call(name, export, tmp_path):
    exported = export(name)
    files = []
    for number, (height, width) in enumerate([(90, 200), (130, 70)]):
        coarse = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        files.append(str(tmp_path / f'{number}.png'))
        cv2.imwrite(files[-1], cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    exported.detector.cfg = exported.cfg
    wanted = mmdet_inference(exported.detector, files)  # one by one
    for result, sample in zip(inference_detector(exported.onnx, files), wanted, strict=True):
        found, theirs = result.pred_instances, sample.pred_instances
        assert len(found) == len(theirs) > 2 and found.labels.tolist() == theirs.labels.tolist()
        assert (found.masks != theirs.masks.numpy()).mean() < 1e-3
        seg = sample.pred_panoptic_seg.sem_seg[0].numpy()
        assert result.pred_panoptic_seg.shape == seg.shape == result.ori_shape
        assert agreement(result.pred_panoptic_seg, seg) > 0.99 and len(np.unique(seg)) > 3
        assert (result.pred_panoptic_seg % 1000 != seg % 1000).mean() < 0.01
        assert found[:2].masks.shape == (2, *result.ori_shape)


def test_the_file_says_what_its_masks_are(export):
    description = export('panoptic R18').onnx.description
    assert description.panoptic == dict(num_things_classes=THINGS, score_thr=0.2, panoptic_on=True, instance_on=True)
    changed = {
        **description.as_metadata(),
        'panoptic': '{"num_things_classes": 99, "score_thr": 0.3, "panoptic_on": true, "instance_on": true}',
    }
    with pytest.raises(ValueError, match='panoptic must hold a number of classes'):
        type(description).from_metadata(changed, 'x.onnx')


def test_the_check_compares_segments_and_the_ap_of_things(export, tmp_path):
    exported = export('panoptic R18')
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.resize(coarse, (200, 90), interpolation=cv2.INTER_CUBIC))
    things = [dict(id=label + 1, name=name, isthing=1) for label, name in enumerate(CLASSES[:THINGS])]
    stuff = [dict(id=label + 1, name=CLASSES[label], isthing=0) for label in range(THINGS, THINGS + STUFF)]
    segments = [
        dict(id=7, category_id=1, bbox=[10, 10, 50, 40], area=2000, iscrowd=0),
        dict(id=9, category_id=4, bbox=[0, 0, 9, 9], area=81),
    ]
    content = dict(
        images=[dict(id=3, file_name='a.png')], annotations=[dict(image_id=3, segments_info=segments)], categories=things + stuff
    )
    flat = things_as_instances(content)
    assert [item['category_id'] for item in flat['annotations']] == [1] and flat['annotations'][0]['image_id'] == 3
    predictor = Predictor(exported.cfg, exported.checkpoint)
    found = check(predictor, exported.onnx, [tmp_path / 'a.png'], flat, [3])
    assert found.images == 1 and found.beyond(1e-4) == 0 and len(found.segment_differences) == 1
    assert found.segment_differences[0] < 0.01 and found.pytorch == found.onnx
    predictor.model.bbox_head.fc_cls.bias.data += torch.arange(len(CLASSES) + 1)
    assert check(predictor, exported.onnx, [tmp_path / 'a.png']).segment_differences[0] > 0.01
