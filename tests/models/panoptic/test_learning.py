"""Does panoptic DETR learn: overfitting, in a minute and, slow, to the end."""

import copy

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import METRICS

from mmdet_detr_plugin.datasets.shapes import write_split

from ...builders import build
from ...conftest import ROOT
from ..test_learning import train

SHAPES = ROOT / 'configs/_base_/datasets/shapes_panoptic.py'


def plain_config() -> Config:
    """The demo's DETR without aids, narrower and without dropout, with a mask head."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/panoptic-detr-aided_r18-half_1xb4-10e_shapes-panoptic.py')
    plain = Config.fromfile(ROOT / 'configs/shapes/detr_r18-half_1xb4-10e_shapes.py').model
    cfg.model.training_aids = None
    cfg.model.neck = plain.neck
    cfg.model.bbox_head.zero_init_boxes = False
    cfg.model.neck.update(embed_dims=128, num_encoder_layers=2, num_decoder_layers=2, feedforward_channels=256, dropout=0.0, num_queries=20)
    cfg.model.neck.position_encoding.num_feats = 64
    cfg.model.bbox_head.embed_dims = cfg.model.mask_head.embed_dims = 128
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.optim_wrapper.paramwise_cfg = None
    cfg.optim_wrapper.clip_grad.max_norm = 0.1
    return cfg


def local_config() -> Config:
    return Config.fromfile(ROOT / 'configs/shapes/panoptic-local-detr_r18-half_1xb4-10e_shapes-panoptic.py')


def load_images(cfg: Config, root) -> list[dict]:
    """The training images, without augmentation, with the test pipeline's image infos."""
    config = copy.deepcopy(cfg.test_dataloader.dataset)
    config.update(data_root=f'{root}/', ann_file='annotations/panoptic_train.json')
    config.data_prefix = dict(img='train/', seg='annotations/panoptic_train/')
    config.pipeline[1] = dict(type='mmdet_detr_plugin.LoadPanopticAnnotations')
    dataset = DATASETS.build(config)
    return [dataset[index] for index in range(len(dataset))]


@torch.no_grad()
def panoptic_quality(model, cfg: Config, images: list[dict]) -> dict[str, float]:
    model.eval()
    metric = METRICS.build(copy.deepcopy(cfg.test_evaluator[0]))
    metric.dataset_meta = cfg.metainfo.to_dict()
    for image in images:
        batch = pseudo_collate([copy.deepcopy(image)])
        metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    model.train()
    return metric.evaluate(len(images))


def overfit(tmp_path, cfg: Config, steps: int) -> tuple[dict, dict]:
    """Panoptic quality on 8 images before and after training on them."""
    write_split(tmp_path, seed=0, split='train', count=8)
    folder = f'{tmp_path}/annotations'
    cfg.test_evaluator[0].update(ann_file=f'{folder}/panoptic_train.json', seg_prefix=f'{folder}/panoptic_train/')
    model = build(cfg.model)
    model.init_weights()
    model.train()
    images = load_images(cfg, tmp_path)

    def batches():
        while True:
            yield pseudo_collate(images)

    before = panoptic_quality(model, cfg, images)
    train(model, build_optim_wrapper(model, cfg.optim_wrapper), batches(), steps=steps, drop_at=steps * 4 // 5)
    after = panoptic_quality(model, cfg, images)
    print({name: (round(before[name], 1), round(value, 1)) for name, value in after.items()})
    return before, after


def test_panoptic_quality_rises_on_eight_images(tmp_path):
    before, after = overfit(tmp_path, plain_config(), steps=100)
    assert before['coco_panoptic/PQ'] < 1
    assert after['coco_panoptic/PQ'] > 20


@pytest.mark.slow
def test_local_detr_learns_segments_on_eight_images(tmp_path):
    """The demo's model as it is, in a fiftieth of its schedule."""
    before, after = overfit(tmp_path, local_config(), steps=40)
    assert before['coco_panoptic/PQ'] < 1
    assert after['coco_panoptic/PQ'] > 15


@pytest.mark.slow
def test_overfits_eight_images(tmp_path):
    """PQ of at least 0.9; two minutes on one core."""
    _, after = overfit(tmp_path, plain_config(), steps=400)
    assert after['coco_panoptic/PQ'] >= 90
    assert after['coco_panoptic/PQ_th'] >= 85 and after['coco_panoptic/PQ_st'] >= 85
