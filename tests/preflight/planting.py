"""A small, clean data set and a config on it, to plant faults in."""

import copy
import json
from functools import cache
from pathlib import Path

from mmengine.config import Config

from mmdet_detr_plugin.preflight import Finding, data_findings

from ..conftest import ROOT

CLASSES = ('circle', 'square', 'triangle', 'star')


def plant_data(shapes_dir: Path, root: Path) -> Path:
    """A copy of the shapes: train, and as many other images for val."""
    for split in ('train', 'test'):
        for folder in (split, f'annotations/panoptic_{split}'):
            (root / folder).mkdir(parents=True)
            for image in (shapes_dir / folder).iterdir():
                (root / folder / image.name).write_bytes(image.read_bytes())
        for name in (split, f'panoptic_{split}'):
            write(root, name, json.loads((shapes_dir / 'annotations' / f'{name}.json').read_text()))
    return root


def write(root: Path, split: str, content: object) -> None:
    path = root / 'annotations' / f'{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def edit(root: Path, split: str, change) -> None:
    """Apply a function to a split's annotations."""
    content = json.loads((root / 'annotations' / f'{split}.json').read_text())
    change(content)
    write(root, split, content)


def config(root: Path, name: str = 'shapes/local-detr_r18-half_1xb4-10e_shapes.py', **changes) -> Config:
    """A shipped config on a copy of the shapes.

    Args:
        changes: dotted names with __ for the dots.
    """
    cfg = copy.deepcopy(_shipped(name))
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.data_root = f'{root}/'
    for evaluators in (cfg.val_evaluator, cfg.test_evaluator):
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            for key in ('ann_file', 'seg_prefix'):
                if key in evaluator:
                    evaluator[key] = f'{root}/annotations/{Path(evaluator[key]).name}'
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


@cache
def _shipped(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def first(key: str, **values):
    """A change of the first image, annotation or category."""
    return lambda content: content[key][0].update(values)


def saying(findings, *words: str) -> list:
    """Findings whose two lines hold all the words."""
    return [found for found in findings if all(word in f'{found.finding} -> {found.advice}' for word in words)]


def find_in_data(cfg: Config, severity: str, *words: str) -> Finding:
    """The one finding about the data with these words; it must be of this severity."""
    findings = data_findings(cfg)
    matches = saying(findings, *words)
    assert len(matches) == 1, [item.finding for item in findings]
    assert matches[0].severity == severity and matches[0].area == 'data' and matches[0].advice
    return matches[0]
