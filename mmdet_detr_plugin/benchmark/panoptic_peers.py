"""Panoptic DETRs that are compared: the plugin's, the same with all queries' masks as the official code makes them, and HF's."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from ..models import PanopticDETR
from ..models.panoptic import DETRMaskHead
from . import peers
from .workloads import random_batch

CONFIG = 'panoptic-detr_r50_8xb2-1x_coco'
THINGS, STUFF = 80, 53


class AllMasksHead(DETRMaskHead):
    """The mask head in the order of facebookresearch/detr: features repeated for every query and joined with the maps, adapters before that
    repetition, losses of all matched masks at the image's size at once.
    """

    def forward(self, hidden_states: Tensor, encoded, feats: Sequence[Tensor], chosen: None = None) -> Tensor:
        """(B, Q, D) -> (B x Q, H/4, W/4)."""
        maps, convs = self.attention(hidden_states, encoded), self.mask_convs
        queries = maps.shape[1]
        x = torch.cat((encoded.projected_map.repeat_interleave(queries, 0), maps.flatten(0, 1)), dim=1)
        adapted = [adapter(feat) for adapter, feat in zip(convs.adapters, reversed(feats), strict=True)]
        for index, (conv, norm) in enumerate(zip(convs.convs, convs.norms, strict=True)):
            if index >= 2:
                finer = adapted[index - 2].repeat_interleave(queries, 0)
                x = finer + F.interpolate(x, size=finer.shape[-2:], mode='nearest')
            x = F.relu(norm(conv(x)))
        return convs.conv_out(x)[:, 0]

    def loss(self, logits: Tensor, targets: Sequence[Tensor], size: tuple[int, int], num_objects: Tensor) -> dict[str, Tensor]:
        target = torch.stack(list(targets)).flatten(1).to(logits)
        logits = F.interpolate(logits[:, None], size, mode='bilinear')[:, 0].flatten(1)
        probability = logits.sigmoid()
        right = probability * target + (1 - probability) * (1 - target)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
        focal = ((0.25 * target + 0.75 * (1 - target)) * entropy * (1 - right) ** 2).mean(1)
        dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
        return dict(loss_mask=focal.sum() / num_objects, loss_dice=dice.sum() / num_objects)


class AllMasksDETR(PanopticDETR):
    """Makes the masks of all queries, and selects those that the loss looks at."""

    def _masks_of(self, hidden_states: Tensor, encoded, finer: Sequence[Tensor], image: Tensor, query: Tensor) -> Tensor:
        return self.mask_head(hidden_states, encoded, finer).unflatten(0, hidden_states.shape[:2])[image, query]


def plugin(device: str) -> nn.Module:
    return peers.build(peers.model_config(CONFIG, dropout=0.0), device)


def all_queries(device: str) -> nn.Module:
    config = peers.model_config(CONFIG, dropout=0.0)
    config.update(type=AllMasksDETR)
    config['mask_head'] = dict(type=AllMasksHead)
    model = peers.build(config, device)
    model.load_state_dict(plugin(device).state_dict())
    return model


def hf(device: str) -> nn.Module:
    """transformers' ``DetrForSegmentation`` with random weights: what it computes does not matter for its time and memory."""
    import transformers

    backbone = transformers.ResNetConfig(out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        num_labels=THINGS + STUFF,
        dropout=0.0,
    )
    torch.manual_seed(0)
    return transformers.DetrForSegmentation(config).to(device)


def batch(height: int, width: int, num_objects: int, device: str) -> tuple[Tensor, list[DetDataSample]]:
    """One image whose things fill their boxes, before two kinds of stuff."""
    images, samples = random_batch(1, height, width, num_objects, device)
    for sample in samples:
        seg = torch.full((height, width), THINGS, device=device)
        seg[height // 2 :] = THINGS + 1
        masks = torch.zeros(num_objects, height, width, dtype=torch.bool, device=device)
        for mask, box, label in zip(masks, sample.gt_instances.bboxes.int().tolist(), sample.gt_instances.labels.tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
            seg[mask] = label
        sample.gt_instances.masks = masks
        sample.gt_sem_seg = PixelData(sem_seg=seg[None])
    return images, samples


class HFStep:
    """A training step of HF's model, as ``workloads.training_step`` makes one of the plugin's."""

    def __init__(self, model: nn.Module, images: Tensor, samples: list[DetDataSample]) -> None:
        from ..models.panoptic.segments import with_stuff_objects

        self.model, self.images = model.train(), images
        self.labels = [_hf_labels(sample.gt_instances, sample.img_shape) for sample in with_stuff_objects(samples, THINGS, THINGS + STUFF)]
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def __call__(self) -> Tensor:
        mask = torch.ones(len(self.images), *self.images.shape[-2:], dtype=torch.long, device=self.images.device)
        loss = self.model(pixel_values=self.images, pixel_mask=mask, labels=self.labels).loss
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        return loss.detach()


def _hf_labels(objects: InstanceData, shape: tuple[int, int]) -> dict[str, Tensor]:
    low, high = (objects.bboxes / objects.bboxes.new_tensor([shape[1], shape[0]] * 2)).chunk(2, dim=1)
    boxes = torch.cat(((low + high) / 2, high - low), dim=1)
    return dict(class_labels=objects.labels, boxes=boxes, masks=objects.masks.float())


BUILDERS: dict[str, Callable[[str], nn.Module]] = {'plugin': plugin, 'all queries': all_queries, 'HF': hf}


def step_of(name: str, size: tuple[int, int], num_objects: int, device: str) -> Callable[[], object]:
    """A training step by name of a builder."""
    from .workloads import training_step

    model, data = BUILDERS[name](device), batch(*size, num_objects, device)
    return HFStep(model, *data) if name == 'HF' else training_step(model, *data)
