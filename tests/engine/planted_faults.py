"""Short trainings of small detectors, and NaN to plant in them."""

from pathlib import Path

import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

from mmdet_detr_plugin.engine.first_non_finite import image_metas

from ..conftest import ROOT

NAMES = dict(detr='detr_r18-half', local='local-detr_r18-half', faster_rcnn='faster-rcnn_r18-half_fpn')
EPOCHS, ITERS, IMAGES = 3, 2, 4
FAULTY_STEP = 3  # counted from 0: the second iteration of the second epoch
NAN = float('nan')


def load(kind: str, shapes_dir: Path, work_dir: Path, **hook) -> Config:
    """Three epochs of two iterations, with dropout, flips, an averaged model, a checkpoint each epoch, and no validation."""
    cfg = Config.fromfile(ROOT / f'configs/shapes/{NAMES[kind]}_1xb4-10e_shapes.py')
    cfg.model.backbone.update(base_channels=8, stem_channels=8, norm_eval=kind == 'detr')
    if kind == 'detr':
        cfg.model.neck.update(in_channels=64, num_encoder_layers=1, num_decoder_layers=2, num_queries=10)
    else:
        cfg.model.neck.in_channels = [8, 16, 32, 64]
    if kind == 'local':
        cfg.model.bbox_head.update(num_queries=12, num_points=3)
        cfg.model.test_cfg = None
    cfg.train_dataloader.dataset.pipeline.insert(2, dict(type='PlantInSample'))
    cfg.train_dataloader.dataset.update(data_root=f'{shapes_dir}/', indices=IMAGES)
    cfg.train_dataloader.update(batch_size=IMAGES // ITERS, num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=EPOCHS)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    cfg.default_hooks.checkpoint.update(interval=1)
    cfg.visualizer.name = str(work_dir)  # mmengine keeps one for each name
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    return cfg


@TRANSFORMS.register_module()
class PlantInSample(BaseTransform):
    """What a broken transform would do, to one image while ``what`` is set."""

    what: str | None = None
    img_id: int | None = None

    def transform(self, results: dict) -> dict:
        if self.what and results['img_id'] == self.img_id:
            if self.what == 'image':
                results['img'] = results['img'].astype('float32')
                results['img'][5, 6, 1] = NAN
            else:
                results['gt_bboxes'].tensor[0, 2] = NAN
        return results


class PlantHook(Hook):
    """Plants before the faulty step, and records every step's loss, images and weights before it."""

    priority = 'VERY_LOW'  # last before a step

    def __init__(self, plant=None) -> None:
        self.plant, self.losses, self.images, self.weights = plant, [], [], []

    def before_train_epoch(self, runner) -> None:
        if isinstance(self.plant, str) and runner.epoch == FAULTY_STEP // ITERS:
            PlantInSample.what, PlantInSample.img_id = self.plant, self.faulty_image

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self.images.append([meta['img_id'] for meta in image_metas(data_batch)])
        self.weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})
        if callable(self.plant) and runner.iter == FAULTY_STEP:
            self.plant(runner.model)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.losses.append({name: value.item() for name, value in outputs.items()})


def trained(cfg: Config, plant=None, faulty_image: int | None = None, is_checked: bool = True) -> tuple[Runner, PlantHook]:
    """Run to the end, or to the error that is raised with the runner and the hook as ``error.run``."""
    if not is_checked:
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmdet_detr_plugin.NonFiniteHook']
    runner, hook = Runner.from_cfg(cfg), PlantHook(plant)
    hook.faulty_image = faulty_image
    runner.register_hook(hook)
    try:
        runner.train()
    except Exception as error:
        error.run = runner, hook
        raise
    finally:
        PlantInSample.what = None
    return runner, hook


class NanBackward(torch.autograd.Function):
    """The identity, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.value, None


def in_tensor(name: str):
    def plant(model) -> None:
        value = model.state_dict()[name]
        value[1] = NAN

    return plant


def in_output(name: str):
    def spoil(module, inputs, output):
        output = output.clone()
        output[1] = NAN
        return output

    return lambda model: model.get_submodule(name).register_forward_hook(spoil)


def in_gradient(name: str, value: float = NAN):
    """In the gradient of a module's output."""
    return lambda model: model.get_submodule(name).register_forward_hook(lambda module, inputs, output: NanBackward.apply(output, value))
