"""Objects by image: none at all, none in some images, more than a model can find."""

import numpy as np

from .config_facts import dict_at, num_queries
from .finding import ERROR, NOTE, WARNING, Finding, part
from .splits import Split


def check_empty_images(split: Split) -> list[Finding]:
    """A split without images or objects, images without objects, and what training does with them."""
    if not split.num_images:
        return [Finding('data', ERROR, f'{split.name}: {split.annotations.path} lists 0 images', 'point ann_file at the right file')]
    if not split.is_object.any():
        what = f'{split.name}: 0 objects in {split.num_images} images'
        advice = 'nothing can be learned or measured; check the classes and the annotation file'
        return [Finding('data', ERROR, what, advice)]
    findings = []
    empty, drops = int(split.is_empty.sum()), split.is_training and bool(split.filter_cfg.get('filter_empty_gt'))
    if empty:
        what = f'{split.name}: {part(empty, split.num_images, "images")} have no object'
        advice = 'they are kept: they teach what "no object" looks like, and false positives on them count. Set filter_cfg to drop them'
        if not split.is_training:
            advice = 'they are evaluated: every detection on them is a false positive. Nothing to do if they are meant'
        if drops:
            what += ', and filter_cfg drops them from training'
            advice = 'keep them with filter_cfg=None, as the official DETR does, and for every model that you compare'
        findings.append(Finding('data', NOTE, what, advice))
    if lost := int((~split.is_used & ~(split.is_empty & drops)).sum()):
        what = f'{split.name}: {part(lost, split.num_images, "images")} are left out by filter_cfg min_size={split.filter_cfg["min_size"]}'
        findings.append(Finding('data', WARNING, what, 'lower min_size or set filter_cfg=None'))
    return findings


def check_most_objects(cfg: dict, split: Split) -> list[Finding]:
    """Against queries, and against the detections that a model may return for an image."""
    if not split.num_images:
        return []
    counts, model = split.objects_by_image, cfg.get('model') or {}
    fullest = int(np.argmax(counts))
    most = int(counts[fullest])
    findings, queries = [], num_queries(model)
    for limit, action in (
        (queries, f'raise num_queries to {_round_up(most)} or more'),
        (_most_detections(model), f'raise it to {_round_up(most)} or more'),
    ):
        if limit and most > limit[1]:
            place, number = limit
            what = (
                f'{split.name}: {int((counts > number).sum())} images have more objects than {place} = {number}; the most are {most}, in '
                f'{split.annotations.file_names[fullest]}'
            )
            lost = int(np.maximum(counts - number, 0).sum())
            fault = 'stay unmatched in training' if split.is_training else 'can never be found'
            advice = f'{lost} objects {fault}: {action}, or cut the images into tiles'
            findings.append(Finding('data', WARNING, what, advice))
    return findings


def _most_detections(model: dict) -> tuple[str, int] | None:
    for keys in (('test_cfg', 'rcnn'), ('test_cfg',)):
        number = dict_at(model, *keys).get('max_per_img')
        if isinstance(number, int) and number > 0:
            return f'model.{".".join(keys)}.max_per_img', number
    return None


def _round_up(most: int) -> int:
    return -(-most * 3 // 2 // 50) * 50 if most > 50 else 50
