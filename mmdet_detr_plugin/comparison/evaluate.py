"""What a comparison wants to know of one trained model: ``python -m mmdet_detr_plugin.comparison.evaluate CONFIG RUN_FOLDER``.

Detections are written to ``RUN_FOLDER/detections/*.json`` as COCO results: ``padded`` (batches of several images), ``single`` (one by one),
``unsuppressed`` (without the model's NMS), ``layer1`` ... (by decoder layer). What is known besides goes to ``evaluation.json``, last.
"""

import copy
import math
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.evaluator import BaseMetric  # noqa: E402
from mmengine.registry import METRICS  # noqa: E402
from torch import Tensor  # noqa: E402

from ..boxes import cxcywh_to_xyxy  # noqa: E402
from ..engine.matching_record_hook import matching_changes  # noqa: E402
from ..files import write_json  # noqa: E402
from ..prediction.trained_model import load_model  # noqa: E402
from .evaluators import PANOPTIC_QUALITY, panoptic_evaluator  # noqa: E402
from .inference import Truth, detections, has_layers, layer_outputs, matched_queries, ordered_loader  # noqa: E402
from .run_records import last_checkpoint  # noqa: E402

PADDED_BATCH = 8
SAME_BOX = 0.9  # IoU from which two queries predict the same


def main() -> None:
    config, folder = Path(sys.argv[1]), Path(sys.argv[2])
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    evaluate(Config.fromfile(config), folder, last_checkpoint(folder / 'training'), device)


def evaluate(cfg: Config, folder: Path, checkpoint: Path, device: str) -> None:
    """Write the files that the module's text names."""
    model = load_model(cfg, checkpoint, device)
    own = cfg.test_dataloader.batch_size
    batch_size = own if own > 1 else PADDED_BATCH
    loader = ordered_loader(cfg.test_dataloader, 1)
    truth = Truth.of_config(cfg, loader.dataset.metainfo)
    results, facts = {}, dict(checkpoint=checkpoint.name, categories=sorted(truth.categories.values()))
    metric = _panoptic_metric(cfg, loader.dataset.metainfo)
    results['single'], _ = detections(model, loader, truth, None if own > 1 else metric)
    results['padded'], share = detections(model, ordered_loader(cfg.test_dataloader, batch_size), truth, metric if own > 1 else None)
    facts['panoptic'] = None if metric is None else _panoptic_quality(metric, len(loader.dataset))
    facts['padding'] = dict(batch_size=batch_size, padded_pixels=share)
    facts['nms_iou'] = nms_iou(cfg)
    if facts['nms_iou'] is not None:
        results['unsuppressed'], _ = detections(load_model(without_nms(cfg), checkpoint, device), loader, truth)
    facts['layers'], facts['health'] = 0, None
    if has_layers(model):
        by_layer, facts['health'] = look_into(model, loader, truth)
        results |= {f'layer{number}': found for number, found in enumerate(by_layer, start=1)}
        facts['layers'] = len(by_layer)
        facts['health']['matching_changes'] = matching_changes(folder / 'training')
    for name, found in results.items():
        write_json(folder / 'detections' / f'{name}.json', found)
    write_json(folder / 'evaluation.json', facts)


def _panoptic_metric(cfg: Config, metainfo: dict) -> BaseMetric | None:
    evaluator = panoptic_evaluator(cfg)
    if evaluator is None:
        return None
    metric = METRICS.build(copy.deepcopy(evaluator))
    metric.dataset_meta = metainfo
    return metric


def _panoptic_quality(metric: BaseMetric, num_images: int) -> dict[str, float]:
    """``PANOPTIC_QUALITY`` in percent; None where no such class occurs."""
    found = {name.split('/')[-1]: float(value) for name, value in metric.evaluate(num_images).items()}
    return {name: found[name] if math.isfinite(found[name]) else None for name in PANOPTIC_QUALITY}


def look_into(model, loader, truth: Truth) -> tuple[list[list[dict]], dict]:
    """Detections of every decoder layer, and what the queries do.

    Returns:
        COCO results by layer; and ``queries`` Q, ``collapsed_pairs``: the share of pairs of queries that predict the same box, over all
        images; ``unused_queries``: the share of queries that matching gives to no object of any image, None where queries are selected
        anew in each image.
    """
    by_layer, used, collapsed, pairs, num_queries = [], set(), 0, 0, 0
    for samples, logits, boxes in layer_outputs(model, loader):
        by_layer = by_layer or [[] for _ in logits]
        metas = [sample.metainfo for sample in samples]
        for number, found in enumerate(by_layer):
            layer = slice(number, number + 1)
            for sample, instances in zip(samples, model.bbox_head.predict_by_feat(logits[layer], boxes[layer], metas), strict=True):
                found += truth.as_results(sample.img_id, instances)
        for matched in matched_queries(model, samples, logits[-1:], boxes[-1:], truth):
            used.update(matched[0].tolist())
        num_queries = boxes.shape[2]
        same = same_box_pairs(boxes[-1])
        collapsed, pairs = collapsed + same, pairs + len(samples) * num_queries * (num_queries - 1) // 2
    fixed = hasattr(model.neck, 'queries')
    unused = 1 - len(used - {-1}) / max(1, num_queries) if fixed else None
    return by_layer, dict(queries=num_queries, unused_queries=unused, collapsed_pairs=collapsed / max(1, pairs))


def same_box_pairs(boxes_cxcywh_norm: Tensor) -> int:
    """How many pairs of queries in the same image (B, Q, 4) have boxes with an IoU of at least ``SAME_BOX``."""
    corners = cxcywh_to_xyxy(boxes_cxcywh_norm.float())
    overlap = torch.minimum(corners[:, :, None, 2:], corners[:, None, :, 2:]) - torch.maximum(
        corners[:, :, None, :2], corners[:, None, :, :2]
    )
    shared = overlap.clamp(min=0).prod(-1)  # (B, Q, Q)
    area = (corners[..., 2:] - corners[..., :2]).prod(-1)
    same = shared >= SAME_BOX * (area[:, :, None] + area[:, None] - shared)
    return int(same.triu(1).sum())


def nms_iou(cfg: Config) -> float | None:
    """The threshold of the model's last NMS; None where it has none (a proposal network's does not count)."""
    return next((nms.get('iou_threshold') for nms in _final_nms(cfg.model.get('test_cfg'))), None)


def without_nms(cfg: Config) -> Config:
    """The same model, whose last step suppresses nothing; proposals are still suppressed where a proposal network makes them."""
    changed = Config(copy.deepcopy(cfg.to_dict()))
    for nms in _final_nms(changed.model.get('test_cfg')):
        nms.clear()
        nms.update(type='nms', iou_threshold=1.0)
    return changed


def _final_nms(test_cfg) -> list[dict]:
    if not isinstance(test_cfg, dict):
        return []
    parts = [test_cfg] + ([test_cfg['rcnn']] if isinstance(test_cfg.get('rcnn'), dict) else [])
    return [part['nms'] for part in parts if isinstance(part.get('nms'), dict)]


if __name__ == '__main__':
    main()
