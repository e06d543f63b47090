"""Class names of the config against those of the annotations, and the heads' numbers of classes against both."""

from collections import Counter
from difflib import get_close_matches

import numpy as np

from ..config_files import kind
from .config_facts import class_counts
from .finding import ERROR, NOTE, WARNING, Finding, listed
from .splits import Split

IMBALANCE = 100  # objects of the most frequent class for one of the rarest


def check_class_names(split: Split) -> list[Finding]:
    """Names that the file does not have, classes of the file that are not used, another order, ids that are not listed."""
    file_name, in_file = split.annotations.path.name, [name for _, name in split.annotations.categories]
    findings = []
    if twice := sorted(name for name, count in Counter(split.classes).items() if count > 1):
        what = f'{split.name}: {len(twice)} of {len(split.classes)} class names of the config occur more than once: {listed(twice)}'
        findings.append(Finding('data', ERROR, what, 'name each class once: labels are shifted otherwise'))
    missing = [name for name in split.classes if name not in in_file]
    if len(missing) == len(split.classes):
        what = (
            f'{split.name}: none of the {len(missing)} classes of the config is in {file_name}, which has {len(in_file)}: {listed(in_file)}'
        )
        advice = (
            'set metainfo=dict(classes=(...)) of every data set and num_classes of the heads; tools/make_config.py writes such a config'
        )
        return [Finding('data', ERROR, what, advice)]
    if missing:
        near = {name: get_close_matches(name, in_file, n=1) or get_close_matches(name.lower(), in_file, n=1) for name in missing}
        hints = [f'{name!r} is nearest to {match[0]!r}' for name, match in near.items() if match]
        what = f'{split.name}: {len(missing)} of {len(split.classes)} classes of the config are not in {file_name}: {listed(missing)}'
        nearest = '; '.join(hints[:5]) or f'the file has {listed(in_file)}'
        advice = f'{nearest}. Correct the names: mmdet would shift the labels behind a missing one in silence'
        findings.append(Finding('data', ERROR, what, advice))
    in_order = [name for name in in_file if name in split.classes]
    in_config = [name for name in split.classes if name in in_file]
    if in_order != in_config and len(set(in_file)) == len(in_file):
        number = next(i for i, (a, b) in enumerate(zip(in_order, in_config)) if a != b)
        here, there = in_config[number], in_order[number]
        what = f'{split.name}: classes in another order than in {file_name}: class {number} is {here!r} in the config, {there!r} there'
        findings.append(
            Finding('data', ERROR, what, f"mmdet numbers labels in the file's order, so names are swapped; use {listed(in_order, 12)}")
        )
    counts = np.bincount(split.annotations.category[split.annotations.category >= 0], minlength=len(in_file))
    unused = {name: int(count) for name, count in zip(in_file, counts) if count and name not in split.classes}
    if unused:
        named = listed(list(unused))
        what = f'{split.name}: {sum(unused.values())} annotations are of {len(unused)} classes that the config does not name: {named}'
        advice = 'they are left out in silence and become background; add the names to metainfo.classes, or remove the annotations'
        findings.append(Finding('data', WARNING, what, advice))
    return findings


def check_head_classes(cfg: dict, splits: list[Split]) -> list[Finding]:
    """Every head must have as many classes as the data; of panoptic models, those of instances as many as there are things."""
    findings = []
    hooks = {kind(hook) for hook in cfg.get('custom_hooks') or []}
    if len({split.classes for split in splits}) > 1:
        stated = ', '.join(f'{split.name} {len(split.classes)} ({listed(split.classes, 3)})' for split in splits)
        advice = 'give every data set the same metainfo.classes: labels of one mean other classes in the other'
        findings.append(Finding('data', ERROR, f'the data sets have different classes: {stated}', advice))
    if not splits:
        return findings
    for place, number in class_counts(cfg.get('model') or {}).items():
        stuff = splits[0].annotations.stuff if '.roi_head.' in place else ()
        classes = [name for name in splits[0].classes if name not in stuff]
        if number == len(classes):
            continue
        what = f'{place} is {number}, the data has {len(classes)} classes ({listed(classes)})'
        if number == len(classes) + 1:
            what += ': off by one'
            advice = f'set it to {len(classes)}: background ("no object") is not counted in mmdet, and COCO ids start at 1 but labels at 0'
        elif number == len(classes) - 1:
            what += f': off by one, labels of {classes[-1]!r} are out of range'
            advice = f'set it to {len(classes)}, the number of names in metainfo.classes'
        elif number < len(classes):
            what += f': labels from {number} to {len(classes) - 1} are out of range'
            advice = f'set it to {len(classes)}; labels out of range show as index errors, NaN costs or "degenerate boxes"'
        else:
            what += f': {number - len(classes)} outputs have no class'
            advice = f'set it to {len(classes)} (tools/make_config.py does), or name the missing classes'
        is_error = number < len(classes) or 'NumClassCheckHook' in hooks
        findings.append(Finding('data', ERROR if is_error else WARNING, what, advice))
    return findings


def check_class_balance(splits: list[Split]) -> list[Finding]:
    """Classes that cannot be learned, or not be measured, and rare ones."""
    findings = []
    training = [split for split in splits if split.is_training]
    names = training[0].classes if training else ()
    counts = sum((object_counts(split) for split in training if split.classes == names), np.zeros(len(names), dtype=int))
    if not len(names) or not counts.sum():
        return findings  # reported with the images
    if absent := [name for name, count in zip(names, counts) if not count]:
        what = f'train: {len(absent)} of {len(names)} classes have no object: {listed(absent)}'
        findings.append(Finding('data', WARNING, what, 'they cannot be learned: add images, or remove the classes'))
    rarest, most = int(np.argmin(np.where(counts, counts, counts.max()))), int(np.argmax(counts))
    if counts[most] >= IMBALANCE * counts[rarest]:
        ratio = counts[most] / counts[rarest]
        what = f'train: {names[most]!r} has {counts[most]} objects, {names[rarest]!r} {counts[rarest]}, a ratio of {ratio:.0f}'
        advice = "look at AP by class, not only at the mean; mmdet's ClassBalancedDataset around the data repeats images of rare classes"
        findings.append(Finding('data', NOTE, what, advice))
    for split in splits:
        if split.is_training or split.classes != names or not (measured := object_counts(split)).sum():
            continue
        if absent := [name for name, count in zip(names, measured) if not count]:
            what = f'{split.name}: {len(absent)} of {len(names)} classes have no object: {listed(absent)}'
            findings.append(Finding('data', NOTE, what, 'their AP is undefined and left out of the mean; add images of them to measure it'))
    return findings


def object_counts(split: Split) -> np.ndarray:
    """Objects of every class, (K,)."""
    return np.bincount(split.labels[split.is_object], minlength=len(split.classes))
