"""Does it learn: overfitting in the suite, generalisation in a slow run."""

import copy
import random

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper

from mmdet_detr_plugin.comparison.analysis.matches import match
from mmdet_detr_plugin.datasets.shapes import write_split

from ..builders import build
from ..conftest import ROOT


def cut_config() -> Config:
    """The demo's DETR, narrower and without dropout; the backbone is trained from scratch with it."""
    cfg = Config.fromfile(ROOT / 'configs/shapes/detr_r18-half_1xb4-10e_shapes.py')
    cfg.model.backbone.update(base_channels=32, stem_channels=32)
    cfg.model.neck.update(
        in_channels=256, embed_dims=128, num_encoder_layers=2, num_decoder_layers=2, feedforward_channels=256, dropout=0.0, num_queries=20
    )
    cfg.model.neck.position_encoding.num_feats = 64
    cfg.model.bbox_head.embed_dims = 128
    cfg.optim_wrapper.optimizer.lr = 1e-3
    return cfg


def load_split(cfg: Config, root, split: str) -> list[dict]:
    """All images of a split, decoded, without augmentation, with the test pipeline's image infos."""
    config = copy.deepcopy(cfg.test_dataloader.dataset)
    config.update(data_root=f'{root}/', ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'))
    dataset = DATASETS.build(config)
    return [dataset[index] for index in range(len(dataset))]


def average_precision(model, images: list[dict], root, split: str) -> float:
    model.eval()
    detections = []
    with torch.no_grad():
        for start in range(0, len(images), 20):
            for sample in model.test_step(pseudo_collate(copy.deepcopy(images[start : start + 20]))):
                predicted = sample.pred_instances
                for (x0, y0, x1, y1), score, label in zip(predicted.bboxes.tolist(), predicted.scores.tolist(), predicted.labels.tolist()):
                    detections.append(dict(image_id=sample.img_id, category_id=label + 1, bbox=[x0, y0, x1 - x0, y1 - y0], score=score))
    model.train()
    return match(root / 'annotations' / f'{split}.json', detections).metrics()['AP']


def train(model, optimizer, batches, steps: int, drop_at: int | None = None) -> None:
    """``steps`` updates; the rate drops to a tenth before step ``drop_at``."""
    for step in range(steps):
        if step == drop_at:
            for group in optimizer.optimizer.param_groups:
                group['lr'] *= 0.1
        data = model.data_preprocessor(copy.deepcopy(next(batches)), True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.update_params(loss)


def test_overfits_eight_images(tmp_path):
    """AP >= 0.8 on the 8 images it was trained on; about 40 seconds on 2 cores."""
    write_split(tmp_path, seed=0, split='train', count=8)
    cfg = cut_config()
    model = build(cfg.model)
    model.init_weights()
    model.train()
    images = load_split(cfg, tmp_path, 'train')
    before = {name: value.clone() for name, value in model.backbone.named_parameters()}
    assert average_precision(model, images, tmp_path, 'train') < 0.05

    def batches():
        while True:
            yield pseudo_collate(images)

    train(model, build_optim_wrapper(model, cfg.optim_wrapper), batches(), steps=300, drop_at=240)
    exact = average_precision(model, images, tmp_path, 'train')
    assert exact >= 0.8
    with torch.autocast('cpu', dtype=torch.bfloat16):  # as test_cfg.fp16=True does
        rounded = average_precision(model, images, tmp_path, 'train')
    print(f'AP {exact:.4f} in float32, {rounded:.4f} in bfloat16')
    assert rounded == pytest.approx(exact, abs=0.05)
    assert all(not torch.equal(value, before[name]) for name, value in model.backbone.named_parameters())


@pytest.mark.slow
def test_average_precision_on_held_out_images_rises(tmp_path):
    """Plain DETR, 800 training images, 6 minutes on 2 cores: AP on 200 images it has never seen rises.

    Slowly, as plain DETR does from scratch; hence the low bound.
    """
    write_split(tmp_path, seed=0, split='train', count=800)
    write_split(tmp_path, seed=0, split='test', count=200)
    cfg = cut_config()
    cfg.model.neck.num_decoder_layers = 3
    cfg.optim_wrapper.optimizer.lr = 3e-4  # the rate for eight images is too high here
    model = build(cfg.model)
    model.init_weights()
    model.train()
    images, held_out = load_split(cfg, tmp_path, 'train'), load_split(cfg, tmp_path, 'test')
    rng = random.Random(0)

    def batches():
        while True:
            yield pseudo_collate([flipped(image) if rng.random() < 0.5 else image for image in rng.sample(images, 16)])

    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    values = [average_precision(model, held_out, tmp_path, 'test')]
    train(model, optimizer, batches(), steps=2400)
    values.append(average_precision(model, held_out, tmp_path, 'test'))
    print('AP on held-out images before and after 2400 steps:', values)
    assert values[0] < 0.0001
    assert values[1] > 0.0005 and values[1] > 20 * values[0]


def flipped(image: dict) -> dict:
    """The image and its objects mirrored left to right."""
    image = copy.deepcopy(image)
    image['inputs'] = image['inputs'].flip(-1)
    image['data_samples'].gt_instances.bboxes.flip_(image['inputs'].shape[-2:])
    return image
