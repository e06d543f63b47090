"""Detections of a trained model on a config's test data, as COCO results, by decoder layer too."""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from torch import Tensor, nn

from ..models.detector import SetDetector
from ..models.targets import collate_targets
from .analysis.coco_input import quiet
from .evaluators import box_evaluator


def ordered_loader(dataloader: Config, batch_size: int):
    """A loader of the same data in the order of its file, in batches of another size."""
    loader = copy.deepcopy(dataloader)
    loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False, sampler=dict(type='DefaultSampler', shuffle=False))
    loader.pop('batch_sampler', None)
    return Runner.build_dataloader(loader, seed=0)


class Truth:
    """The evaluation's annotation file, and how labels and categories belong together.

    Args:
        stuff: classes without boxes, which the file does not have; detections of them are left out.
    """

    def __init__(self, annotation_file: str, classes: Sequence[str], stuff: Collection[str] = ()) -> None:
        with quiet():
            self.coco = COCO(str(annotation_file))
        ids = {category['name']: category['id'] for category in self.coco.dataset['categories']}
        self.categories = {label: ids[name] for label, name in enumerate(classes) if name not in stuff}
        self.labels = {category: label for label, category in self.categories.items()}

    def instances(self, image_id: int) -> InstanceData:
        """Objects of an image, in original pixels; crowds are left out."""
        annotations = [item for item in self.coco.loadAnns(self.coco.getAnnIds(imgIds=[image_id])) if not item.get('iscrowd')]
        annotations = [item for item in annotations if item['category_id'] in self.labels]
        boxes = torch.tensor([item['bbox'] for item in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self.labels[item['category_id']] for item in annotations], dtype=torch.long)
        return InstanceData(bboxes=boxes, labels=labels)

    def as_results(self, image_id: int, instances: InstanceData) -> list[dict]:
        """COCO results of an image's detections (bboxes in xyxy, original pixels)."""
        boxes = instances.bboxes.float().cpu().clone()
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(boxes.tolist(), instances.scores.tolist(), instances.labels.tolist(), strict=True)
        return [
            dict(image_id=image_id, category_id=self.categories[label], bbox=box, score=score)
            for box, score, label in rows
            if label in self.categories
        ]

    @classmethod
    def of_config(cls, cfg: Config, metainfo: dict, split: str = 'test') -> 'Truth':
        """Of a config's evaluator; ``metainfo`` is that of the data set."""
        return cls(box_evaluator(cfg, split)['ann_file'], metainfo['classes'], metainfo.get('stuff_classes') or ())


@torch.no_grad()
def detections(model: nn.Module, loader, truth: Truth, metric: BaseMetric | None = None) -> tuple[list[dict], float]:
    """All detections, and the share of the batches' pixels that is padding; a metric sees the same predictions."""
    results, padding, pixels = [], 0, 0
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        height, width = data['inputs'].shape[-2:]
        samples = model(**data, mode='predict')
        if metric is not None:
            metric.process(data, [sample.to_dict() for sample in samples])
        for sample in samples:
            results += truth.as_results(sample.img_id, sample.pred_instances)
            pixels += height * width
            padding += height * width - sample.img_shape[0] * sample.img_shape[1]
    return results, padding / max(1, pixels)


def layer_outputs(model: SetDetector, batches: Iterable) -> Iterator[tuple[list, Tensor, Tensor]]:
    """For each batch its data samples, class logits (L, B, Q, ...) and boxes_cxcywh_norm (L, B, Q, 4)."""
    with torch.no_grad():
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            yield data['data_samples'], *model.layer_outputs(data['inputs'], data['data_samples'])


def matched_queries(model: SetDetector, samples: list, logits: Tensor, boxes: Tensor, truth: Truth) -> list[Tensor]:
    """For each image (L, objects): the query that matching gives to each object in each decoder layer."""
    objects = [truth.instances(sample.img_id) for sample in samples]
    metas = [dict(img_shape=sample.ori_shape, img_path=sample.img_path) for sample in samples]
    targets = collate_targets([item.to(boxes.device) for item in objects], metas, model.bbox_head.num_classes)
    pairs = model.bbox_head.match(logits, boxes, targets, metas)
    matched = []
    for number, count in enumerate(targets.counts):
        own = pairs.image == number
        found = torch.full((len(logits), count), -1, dtype=torch.long, device=boxes.device)  # -1: more objects than queries
        found[pairs.layer[own], pairs.target[own]] = pairs.query[own]
        matched.append(found.cpu())
    return matched


def has_layers(model: nn.Module) -> bool:
    """Whether the decoder's layers can be looked at one by one."""
    return isinstance(model, SetDetector) and hasattr(model.bbox_head, 'match')
