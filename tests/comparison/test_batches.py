"""DETR's and Faster R-CNN's loaders deliver the same samples, and the check notices when they do not."""

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config

from mmdet_detr_plugin.comparison.batches import delivered_samples, first_difference

from ..conftest import ROOT

SMALL = ('small/detr_r18-half_1xb2-12e_coco320.py', 'small/faster-rcnn_r18-half_fpn_1xb2-12e_coco320.py')
SHAPES_CLASSES = dict(classes=('circle', 'square', 'triangle', 'star'))


def load(name: str, shapes_dir, workers: int) -> Config:
    """A config with DETR's random flips, sizes and crops and ``AspectRatioBatchSampler``, on the shapes."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    cfg.train_dataloader.dataset.update(
        data_root=str(shapes_dir), ann_file='annotations/train.json', data_prefix=dict(img='train/'), metainfo=SHAPES_CLASSES
    )
    return cfg


@pytest.fixture
def pair(shapes_dir) -> list[Config]:
    """Both models' configs with other worker counts, after each model has drawn its weights from the global generators."""
    cfgs = [load(name, shapes_dir, workers) for name, workers in zip(SMALL, (0, 2))]
    for cfg in cfgs:
        cfg.model.backbone.init_cfg = None
        MODELS.build(copy.deepcopy(cfg.model))
        np.random.random(len(cfg.filename))
    return cfgs


def test_both_models_get_the_same_pixels_and_boxes_over_two_epochs(pair):
    assert pair[0].train_dataloader.batch_sampler.type == 'AspectRatioBatchSampler'
    assert first_difference(pair, epochs=2) is None


def test_augmentation_changes_from_epoch_to_epoch(pair):
    samples = {}
    for sample in delivered_samples(pair[1], epochs=2):
        samples.setdefault(sample.image, []).append(sample.pixels)
    changed = [first.shape != second.shape or not torch.equal(first, second) for first, second in samples.values()]
    assert len(changed) == 16 and sum(changed) >= 14


@TRANSFORMS.register_module()
class PlantedNoise(BaseTransform):
    """Takes its own generator from the global state when the pipeline is built, as some augmentation libraries do."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(np.random.randint(2**31))

    def transform(self, results: dict) -> dict:
        results['img'] = results['img'] ^ self.generator.integers(2, size=results['img'].shape, dtype=np.uint8)
        return results


def test_check_sees_a_transform_that_draws_from_the_global_state(pair):
    for cfg in pair:
        cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='PlantedNoise'))
    assert 'epoch 1, batch 1: config 2 delivers other pixels than config 1' in first_difference(pair)


def test_check_sees_a_data_set_whose_samples_are_not_seeded(pair):
    for cfg in pair:
        cfg.train_dataloader.dataset.type = 'CocoDataset'
    assert first_difference(pair).startswith('epoch 1, batch ')


def test_check_sees_another_order_another_batch_size_and_missing_images(pair):
    pair[1].randomness.seed = 1
    assert 'another image than' in first_difference(pair)
    pair[1].randomness.seed = 0
    pair[1].train_dataloader.batch_size = 8
    assert 'another batch size' in first_difference(pair)
    pair[1].train_dataloader.batch_size = 2
    pair[1].train_dataloader.dataset.indices = 8
    assert first_difference(pair) is not None


def test_check_needs_what_makes_training_repeatable(pair):
    pair[1].custom_hooks = [dict(type='NumClassCheckHook')]
    with pytest.raises(
        ValueError, match=r"faster-rcnn_r18.*needs .*EpochSeedHook.*got seed 0 and \['NumClassCheckHook'\]; .*_base_.custom_hooks"
    ):
        first_difference(pair)
    pair[0].randomness = dict()
    with pytest.raises(ValueError, match=r'detr_r18.*needs randomness.seed .* got seed None'):
        first_difference(pair)


def test_check_can_stop_early(pair):
    assert len(list(delivered_samples(pair[0], epochs=2, max_batches=1))) == 2 * 2
    assert first_difference(pair, max_batches=1) is None


def test_check_sees_a_moved_box(pair):
    for cfg, scale in zip(pair, (1.0, 1.01)):
        cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='PlantedShift', scale=scale))
    assert 'delivers other boxes_xyxy_abs than' in first_difference(pair)


@TRANSFORMS.register_module()
class PlantedShift(BaseTransform):
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def transform(self, results: dict) -> dict:
        results['gt_bboxes'].tensor.mul_(self.scale)
        return results
