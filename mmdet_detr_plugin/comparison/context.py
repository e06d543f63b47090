"""What surrounds the figures of a comparison: its data, its budget, and how to repeat it."""

import json
import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..benchmark.results import machine
from ..config_files import annotation_files, innermost_dataset
from ..datasets.panoptic.segments_as_instances import segments_as_instances
from .preparation import Model

VERSIONS = ('python', 'torch', 'mmcv', 'mmdet', 'mmengine', 'scipy')


def data_facts(cfg: Config, name: str) -> dict:
    """Images and objects of every split, and of every class; ``test`` is left out where it is the same as ``val``."""
    files = {split: annotation_files(cfg[f'{split}_dataloader']) for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')}
    evaluated_on = 'test'
    if 'val' in files and [path.resolve() for path in files['val']] == [path.resolve() for path in files['test']]:
        del files['test']
        evaluated_on = 'val'
    contents = {
        split: [segments_as_instances(json.loads(path.read_text())) for path in dict.fromkeys(paths)]  # joined with itself, it is one
        for split, paths in files.items()
    }
    first = contents['train'][0]
    classes = (innermost_dataset(cfg.train_dataloader).get('metainfo') or {}).get('classes')
    classes = classes or [category['name'] for category in first['categories']]
    objects = {split: [_objects_of(content, classes) for content in of_split] for split, of_split in contents.items()}
    by_class = {split: Counter(name for found in of_split for _, name in found) for split, of_split in objects.items()}
    splits = {}
    for split, of_split in contents.items():
        images = sum(len(content['images']) for content in of_split)
        with_objects = sum(len({image for image, _ in found}) for found in objects[split])
        splits[split] = dict(images=images, objects=sum(map(len, objects[split])), empty_images=images - with_objects)
    return dict(
        name=name,
        layout=(first.get('info') or {}).get('source'),
        splits=splits,
        evaluated_on=evaluated_on,
        classes=[dict(name=item, objects={split: counts[item] for split, counts in by_class.items()}) for item in classes],
    )


def images_per_epoch(cfg: Config) -> int:
    """How many images an epoch of training shows: those that filters leave, repeated and joined as the config says."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return len(DATASETS.build(cfg.train_dataloader.dataset))


def budget(models: Sequence[Model], seeds: Sequence[int], images: int, processes: int) -> dict:
    """Epochs, images in a step over all processes, and images seen in a training of epochs of ``images``."""
    first = models[0]
    batch = first.cfg.train_dataloader.batch_size * processes * first.cfg.optim_wrapper.get('accumulative_counts', 1)
    return dict(epochs=first.epochs, batch_size=batch, images_seen=first.epochs and first.epochs * images, seeds=list(seeds))


def how_to_repeat(commands: Sequence[str], configs: dict[str, str]) -> dict:
    """Commands, versions, commit (None outside of a checkout), hardware and resolved configs."""
    facts = machine('cuda' if torch.cuda.is_available() else 'cpu')
    return dict(
        commands=list(commands),
        versions={name: facts[name] for name in VERSIONS if name in facts},
        commit=_commit(),
        hardware={name: facts[name] for name in ('device', 'threads', 'capability')},
        configs=configs,
    )


def _objects_of(content: dict, classes: Collection[str]) -> list[tuple[int, str]]:
    """Image id and class of every annotation; those of other categories are left out."""
    names = {category['id']: category['name'] for category in content['categories'] if category['name'] in classes}
    return [(item['image_id'], names[item['category_id']]) for item in content.get('annotations', []) if item['category_id'] in names]


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=folder, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 and (folder.parent.parent / 'setup.py').is_file() else None
