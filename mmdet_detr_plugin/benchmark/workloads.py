"""Batches of random images and objects, and what a user does with them: a training step, detections, the loss alone."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

NUM_CLASSES = 80


def random_objects(count: int, height: int, width: int, device: str, generator: torch.Generator) -> InstanceData:
    """Boxes of 5 % to 45 % of the image's sides, in xyxy pixels, and labels."""
    size = 0.05 + 0.4 * torch.rand(count, 2, generator=generator)
    low = torch.rand(count, 2, generator=generator) * (1 - size)
    boxes = torch.cat((low, low + size), dim=1) * torch.tensor([width, height, width, height])
    labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
    return InstanceData(bboxes=boxes.to(device), labels=labels.to(device))


def random_batch(batch_size: int, height: int, width: int, num_objects: int, device: str) -> tuple[Tensor, list[DetDataSample]]:
    """Normalised images (B, 3, H, W) without padding, smooth so that places differ, and their data samples."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for index in range(batch_size):
        shape = (height, width)
        meta = dict(img_id=index, img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = random_objects(num_objects, height, width, device, generator)
        samples.append(sample)
    coarse = 2 * torch.randn(batch_size, 3, 8, 10, generator=generator)
    return F.interpolate(coarse, (height, width), mode='bicubic').to(device), samples


def predictor(model: nn.Module, images: Tensor, samples: list[DetDataSample]) -> Callable[[], list]:
    """Detections of one batch, without pre-processing; ``HF`` models get a mask of valid pixels, as they require it."""
    model.eval()

    @torch.no_grad()
    def predict() -> list:
        if hasattr(model, 'predict'):
            return model.predict(images, samples)
        outputs = model(pixel_values=images, pixel_mask=images.new_ones((len(images), *images.shape[-2:]), dtype=torch.long))
        return [outputs.logits.softmax(-1)[..., :-1].max(-1), outputs.pred_boxes]

    return predict


def training_step(model: nn.Module, images: Tensor, samples: list[DetDataSample], amp: dict | None = None) -> Callable[[], object]:
    """A whole ``train_step`` of mmengine: forward, losses, backward, clipping at 0.1, AdamW at 1e-4."""
    model.train()
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4), clip_grad=dict(max_norm=0.1))
    optim_wrapper = build_optim_wrapper(model, {**wrapper, **(amp or {})})

    def step() -> object:
        with optim_wrapper.optim_context(model):
            losses = model.loss(images, samples)
        total, _ = model.parse_losses(losses)
        optim_wrapper.update_params(total)
        return total

    return step


class LossWork:
    """Matching, losses and their gradients for random outputs of a decoder.

    Args:
        shape: (L, B, Q), decoder layers, images and queries.
        num_objects: in each image.
    """

    def __init__(self, shape: tuple[int, int, int], num_objects: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(*shape, NUM_CLASSES + 1, generator=generator).to(device).requires_grad_()
        self.boxes = (0.1 + 0.5 * torch.rand(*shape, 4, generator=generator)).to(device).requires_grad_()
        _, samples = random_batch(shape[1], 64, 64, num_objects, device)
        self.metas = [sample.metainfo for sample in samples]
        self.objects = [sample.gt_instances for sample in samples]

    def of_head(self, config: dict) -> Callable[[], Tensor]:
        """With the head of a config: the plugin's or mmdet's."""
        init_default_scope('mmdet')
        head = MMDET_MODELS.build(copy.deepcopy(config)).to(self.logits.device)  # mmdet writes into it
        return lambda: self._backward(sum(head.loss_by_feat(self.logits, self.boxes, self.objects, self.metas).values()))

    def of_hf(self) -> Callable[[], Tensor]:
        """With transformers' loss, which follows facebookresearch/detr's line by line."""
        from transformers import DetrConfig, ResNetConfig
        from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

        # with a backbone of its own, since transformers asks the network for the default one
        config = DetrConfig(num_labels=NUM_CLASSES, auxiliary_loss=True, use_timm_backbone=False, backbone_config=ResNetConfig())
        labels = self._official_targets('class_labels')

        def work() -> Tensor:
            loss, *_ = ForObjectDetectionLoss(self.logits[-1], labels, self.logits.device, self.boxes[-1], config, self.logits, self.boxes)
            return self._backward(loss)

        return work

    def of_official(self, criterion: nn.Module) -> Callable[[], Tensor]:
        """With facebookresearch/detr's ``SetCriterion``."""
        criterion = criterion.to(self.logits.device)
        targets = self._official_targets('labels')

        def work() -> Tensor:
            layers = [dict(pred_logits=logits, pred_boxes=boxes) for logits, boxes in zip(self.logits, self.boxes, strict=True)]
            losses = criterion({**layers[-1], 'aux_outputs': layers[:-1]}, targets)
            weights = criterion.weight_dict
            return self._backward(
                sum(value * weights[name.rstrip('_0123456789')] for name, value in losses.items() if name.rstrip('_0123456789') in weights)
            )

        return work

    def gradients(self, work: Callable[[], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, and gradients with respect to logits and boxes."""
        loss = work()
        return loss, self.logits.grad.clone(), self.boxes.grad.clone()

    def _backward(self, loss: Tensor) -> Tensor:
        self.logits.grad = self.boxes.grad = None
        loss.backward()
        return loss.detach()

    def _official_targets(self, labels: str) -> list[dict]:
        targets = []
        for objects, meta in zip(self.objects, self.metas, strict=True):
            height, width = meta['img_shape']
            low, high = (objects.bboxes / objects.bboxes.new_tensor([width, height, width, height])).chunk(2, dim=1)
            targets.append({labels: objects.labels, 'boxes': torch.cat(((low + high) / 2, high - low), dim=1)})
        return targets
