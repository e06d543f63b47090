"""Panoptic configs train and evaluate through mmengine's runner, on generated images; and what their augmentation does to ground truth."""

import copy
import json
import math

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_detr_plugin.datasets.shapes import CLASSES, STUFF_CLASSES

from ..conftest import ROOT

SHAPES = 'shapes/panoptic-fpn_r18-half_fpn_1xb4-10e_shapes-panoptic.py'
COCO = 'panoptic_fpn/panoptic-fpn_r50_fpn_8xb2-1x_coco-panoptic.py'
KEYS = [f'coco_panoptic/{kind}{group}' for kind in ('PQ', 'SQ', 'RQ') for group in ('', '_th', '_st')]


def data_of_shapes(name: str, shapes_dir) -> Config:
    """A config on 4 of the generated images, at their size."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    folder = shapes_dir / 'annotations'
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'test')):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(shapes_dir),
            ann_file=f'annotations/panoptic_{split}.json',
            data_prefix=dict(img=f'{split}/', seg=f'annotations/panoptic_{split}/'),
            metainfo=dict(classes=CLASSES + STUFF_CLASSES),
            indices=4,
        )
        shrink(loader.dataset.pipeline)
    for metric in cfg.val_evaluator:
        if 'seg_prefix' in metric:
            metric.update(ann_file=str(folder / 'panoptic_test.json'), seg_prefix=str(folder / 'panoptic_test'))
        else:
            metric.ann_file = str(folder / 'test.json')
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.model.backbone.init_cfg = None  # no download
    return cfg


def on_shapes(name: str, shapes_dir) -> Config:
    """Panoptic FPN with the classes of the generated images, made smaller."""
    cfg = data_of_shapes(name, shapes_dir)
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = len(CLASSES)
    for head in (cfg.model.semantic_head, cfg.model.panoptic_fusion_head):
        head.update(num_things_classes=len(CLASSES), num_stuff_classes=len(STUFF_CLASSES))
    # in a fifth of the time
    if cfg.model.backbone.depth == 50:
        cfg.model.backbone.depth, cfg.model.neck.in_channels = 18, [64, 128, 256, 512]
    cfg.model.train_cfg.rpn_proposal.max_per_img, cfg.model.train_cfg.rcnn.sampler.num = 50, 16
    cfg.model.test_cfg.rpn.max_per_img, cfg.model.test_cfg.rcnn.max_per_img = 50, 10
    return cfg


def shrink(pipeline: list) -> None:
    sizes = dict(
        RandomChoiceResize=dict(scales=[(96, 128), (128, 128)]), RandomCrop=dict(crop_size=(48, 96)), Resize=dict(scale=(128, 128))
    )
    for transform in pipeline:
        if isinstance(transform, list):
            shrink(transform)
            continue
        if 'scale_factor' not in transform:
            transform.update(sizes.get(transform.type, {}))
        shrink(transform.get('transforms', []))


@pytest.mark.parametrize('name', [SHAPES, pytest.param(COCO, marks=pytest.mark.slow)])
def test_config_trains_and_evaluates_with_the_runner(name, shapes_dir, tmp_path):
    cfg = on_shapes(name, shapes_dir)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(tmp_path), 'WARNING', f'panoptic_{len(name)}'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint.update(interval=-1)
    runner = Runner.from_cfg(cfg)
    assert [type(hook).__module__ for hook in runner.hooks if type(hook).__name__ == 'NumClassCheckHook'] == [
        'mmdet_detr_plugin.engine.num_class_check_hook'
    ]
    runner.train()
    scalars = runner.message_hub.log_scalars
    for loss in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask', 'loss_seg'):
        assert math.isfinite(scalars[f'train/{loss}'].current())
    for key in (*KEYS, 'coco/bbox_mAP', 'coco/segm_mAP'):
        assert 0 <= scalars[f'val/{key}'].current() <= 100, key


@pytest.mark.parametrize('path', sorted((ROOT / 'configs' / 'panoptic_detr').glob('*.py')), ids=lambda path: path.stem)
def test_what_the_model_finds_is_what_the_config_evaluates(path, shapes_dir, tmp_path):
    """The first stage finds boxes alone, the others masks and segments too."""
    cfg = data_of_shapes(f'panoptic_detr/{path.name}', shapes_dir)
    cfg.val_dataloader.dataset.indices = 1
    cfg.model.update(num_things_classes=len(CLASSES), num_stuff_classes=len(STUFF_CLASSES))
    cfg.model.bbox_head.num_classes = len(CLASSES + STUFF_CLASSES)
    cfg.model.neck.update(num_encoder_layers=1, num_decoder_layers=1)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(tmp_path), 'WARNING', path.stem
    cfg.load_from = None
    runner = Runner.from_cfg(cfg)
    runner.model.bbox_head.fc_cls.bias.data[0] += 5  # some things, whatever the random weights
    found = runner.val()
    boxes, masks = {'coco/bbox_mAP'} <= found.keys(), {'coco/segm_mAP', *KEYS} <= found.keys()
    assert boxes and masks == ('-boxes_' not in path.name)


def test_boxes_fit_masks_and_labels_fit_the_map_after_augmentation(shapes_dir):
    config = on_shapes(COCO, shapes_dir).train_dataloader.dataset
    config.pop('indices')
    data = DATASETS.build(config)
    cropped = 0
    for epoch in range(3):
        data.sample_randomness.set(0, epoch)
        for index in range(len(data)):
            sample = data[index]['data_samples']
            seg_map, things = sample.gt_sem_seg.sem_seg[0].numpy(), sample.gt_instances
            assert seg_map.shape == sample.img_shape
            whole = data.get_data_info(index)['instances']
            cropped += len(things) < len(whole)
            for box, label, mask in zip(things.bboxes.tensor.numpy(), things.labels.tolist(), things.masks.masks, strict=True):
                rows, columns = np.nonzero(mask)
                assert (seg_map[mask > 0] == label).all()
                tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert np.abs(box - tight).max() <= 3  # pixels, as resizing rounds masks and boxes apart
            assert np.isin(seg_map, [*range(7), 255]).all()
    assert cropped  # some crops leave things out


def test_crowds_are_no_things_and_void_in_training(shapes_dir, tmp_path):
    config = on_shapes(COCO, shapes_dir).train_dataloader.dataset
    content = json.loads((shapes_dir / 'annotations' / 'panoptic_train.json').read_text())
    first = next(annotation for annotation in content['annotations'] if annotation['segments_info'][0]['category_id'] <= len(CLASSES))
    first['segments_info'][0]['iscrowd'] = 1
    (tmp_path / 'crowd.json').write_text(json.dumps(content))
    pipeline = [config.pipeline[index] for index in (0, 1, -1)]
    samples = []
    for ann_file in (config.ann_file, str(tmp_path / 'crowd.json')):
        data = DATASETS.build(dict(copy.deepcopy(config), ann_file=ann_file, pipeline=pipeline, indices=None))
        samples.append(data[[one['image_id'] for one in content['annotations']].index(first['image_id'])]['data_samples'])
    before, after = samples
    crowd = before.gt_instances.masks.masks[0] > 0
    assert len(after.gt_instances) == len(before.gt_instances) - 1
    assert (after.gt_sem_seg.sem_seg[0].numpy()[crowd] == 255).all()
    assert np.array_equal(after.gt_sem_seg.sem_seg[0].numpy()[~crowd], before.gt_sem_seg.sem_seg[0].numpy()[~crowd])
