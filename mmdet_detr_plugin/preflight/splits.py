"""What a config's loaders read: which annotation file and images, under which class names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config_files import dataset_chains, kind
from .annotations import REPAIR, Annotations, read_annotations
from .config_facts import dict_at, whole
from .finding import ERROR, NOTE, WARNING, Finding, guarded

if TYPE_CHECKING:  # the pre-flight must run where mmengine is what is broken
    from mmengine.config import Config

LOADERS = ('train', 'val', 'test')
PLAIN_COCO = ('CocoDataset', 'StrictCocoDataset')


@dataclass
class Split:
    """One data set of a loader.

    Attributes:
        name: 'train', 'val', 'test', or 'val and test' where both read the same.
        loader: the first of these loaders.
        annotations: of the file, also of classes that the config does not name.
        image_dir: what file names are relative to.
        segment_dir: what the names of panoptic PNGs are relative to; None without them.
        classes: names in the config's order.
        filter_cfg: which images training leaves out.
        pipeline: its transforms.
        batch_size: of the loader, on one process.
        repeats: how often an epoch goes through the data set.
    """

    name: str
    loader: str
    annotations: Annotations
    image_dir: Path
    classes: tuple[str, ...]
    filter_cfg: dict
    pipeline: list
    batch_size: int
    repeats: int = 1
    segment_dir: Path | None = None

    @property
    def is_training(self) -> bool:
        return self.loader == 'train'

    @property
    def num_images(self) -> int:
        return len(self.annotations.file_names)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,), index into ``classes``; -1 for annotations of other classes."""
        index = {name: label for label, name in enumerate(self.classes)}
        of_category = np.array([index.get(name, -1) for _, name in self.annotations.categories] + [-1])
        return of_category[self.annotations.category]

    @cached_property
    def is_object(self) -> np.ndarray:
        """(N,), what training and evaluation take for an object of one of the classes."""
        found = self.annotations
        return (self.labels >= 0) & (found.image >= 0) & ~found.is_crowd & ~found.is_ignored

    @cached_property
    def objects_by_image(self) -> np.ndarray:
        """(M,), number of objects."""
        return np.bincount(self.annotations.image[self.is_object], minlength=self.num_images)

    @cached_property
    def is_empty(self) -> np.ndarray:
        """(M,), images without an annotation of one of the classes, crowds included."""
        found = self.annotations
        counted = (self.labels >= 0) & (found.image >= 0)
        return np.bincount(found.image[counted], minlength=self.num_images) == 0

    @cached_property
    def is_used(self) -> np.ndarray:
        """(M,), images that mmdet's ``filter_cfg`` keeps; all of them in evaluation."""
        used = np.ones(self.num_images, dtype=bool)
        if self.is_training:
            if self.filter_cfg.get('filter_empty_gt'):
                used &= ~self.is_empty
            used &= ~(self.annotations.sizes_wh.min(axis=1, initial=np.inf) < self.filter_cfg.get('min_size', 0))
        return used

    def image_path(self, number: int) -> Path:
        return self.image_dir / self.annotations.file_names[number]


@dataclass
class ConfigData:
    """All that a config's loaders read, and what could not be read."""

    splits: list[Split] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def training(self) -> list[Split]:
        return [split for split in self.splits if split.is_training]

    def evaluation(self) -> list[Split]:
        return [split for split in self.splits if not split.is_training]


def read_data(cfg: Config, read: Callable[..., Annotations] = read_annotations) -> ConfigData:
    """Read what a config's loaders read; each annotation file once. What is missing or broken becomes a finding."""
    content, reader = cfg.to_dict(), _Reader(read)
    nodes = {loader: content.get(f'{loader}_dataloader') for loader in LOADERS}
    if not any(nodes.values()):
        reader.find(
            ERROR,
            'the config has no loaders: no train_dataloader, no val_dataloader, no test_dataloader',
            'start from a config of configs/, or inherit one; tools/make_config.py points it at your data',
        )
        return reader.data
    advice = 'inherit it from one of configs/_base_/datasets'
    if not nodes['train']:
        reader.find(ERROR, 'the config has no train_dataloader: it cannot train', advice)
    if not nodes['val'] and not nodes['test']:
        reader.find(WARNING, 'the config has no val_dataloader and no test_dataloader: nothing is evaluated', advice)
    for loader, node in nodes.items():
        if node:
            reader.data.findings += guarded('data', reader.read_loader, loader, node)
    return reader.data


def _datasets(loader: dict) -> Iterator[tuple[dict, int]]:
    """The data sets inside whatever wraps, repeats or joins them, and how often an epoch goes through each."""
    for *wrappers, inner in dataset_chains(loader):
        pipeline, repeats = list(inner.get('pipeline') or []), 1
        for wrapper in reversed(wrappers):
            if kind(wrapper) == 'RepeatDataset':
                repeats *= whole(wrapper, 'times', 1)
            pipeline += wrapper.get('pipeline') or []  # MultiImageMixDataset resizes after the data set's own pipeline
        if inner:
            yield ({**inner, 'pipeline': pipeline} if wrappers else inner), repeats


class _Reader:
    """Collects splits and findings; parses no file twice."""

    def __init__(self, read: Callable[..., Annotations]) -> None:
        self.read = read
        self.data = ConfigData()
        self.files: dict[Path, Annotations | None] = {}  # None: reported already
        self.seen: list[tuple[dict, int, Split]] = []

    def find(self, severity: str, what: str, advice: str) -> None:
        self.data.findings.append(Finding('data', severity, what, advice))

    def read_loader(self, loader: str, node: dict) -> list[Finding]:
        """All data sets of a loader. Findings are collected here; the list that is returned is empty."""
        inner, batch_size = list(_datasets(node)), whole(node, 'batch_size') or 1
        if not inner:
            what = f'{loader}_dataloader has no data set: its "dataset" is {node.get("dataset")!r}'
            self.find(ERROR, what, 'set dataset=dict(type=..., data_root=..., ann_file=..., data_prefix=...)')
        for number, (dataset, repeats) in enumerate(inner, start=1):
            name = f'{loader} {number}' if len(inner) > 1 else loader
            same = next((split for other, size, split in self.seen if other == dataset and size == batch_size), None)
            if same and not same.is_training:
                same.name += f' and {name}'
            elif split := self._split(name, loader, dataset, batch_size, repeats):
                self.data.splits.append(split)
                self.seen.append((dataset, batch_size, split))
        return []

    def _split(self, name: str, loader: str, dataset: dict, batch_size: int, repeats: int) -> Split | None:
        classes = self._classes(name, dataset)
        ann_file, root = dataset.get('ann_file') or '', dataset.get('data_root') or ''
        if not classes:
            return None
        if '://' in f'{ann_file}{root}' or dict_at(dataset, 'backend_args'):
            what = f'{name}: {root}{ann_file} lies in a remote store; nothing of it was checked'
            self.find(NOTE, what, 'run this once on a local copy of the data')
            return None
        prefix = dict_at(dataset, 'data_prefix')
        path = Path(root) / ann_file  # an absolute ann_file stays as it is
        annotations = self._annotations(name, path, 'Panoptic' in kind(dataset))
        if annotations and kind(dataset) == 'StrictCocoDataset':
            self._tell_refusal(annotations)
        return annotations and Split(
            name=name,
            loader=loader,
            annotations=annotations,
            image_dir=Path(root) / (prefix.get('img') or prefix.get('img_path') or ''),
            classes=classes,
            filter_cfg=dict_at(dataset, 'filter_cfg'),
            pipeline=list(dataset.get('pipeline') or []),
            batch_size=batch_size,
            repeats=repeats,
            segment_dir=Path(root) / prefix['seg'] if prefix.get('seg') and annotations.segment_files else None,
        )

    def _annotations(self, name: str, path: Path, panoptic: bool) -> Annotations | None:
        if path not in self.files:
            self.files[path] = None
            try:
                self.files[path] = self.read(path, panoptic)
                self.data.findings += self.files[path].findings
            except ValueError as error:
                advice = f'set data_root and ann_file (the working directory is {Path.cwd()}); tools/convert_dataset.py writes such files'
                self.find(ERROR, f'{name}: {error}', advice)
        return self.files[path]

    def _tell_refusal(self, annotations: Annotations) -> None:
        """Once for each file, and where nothing else in it is an error already."""
        if annotations.refused is None or any(finding.severity == ERROR for finding in annotations.findings):
            return
        what = f'{annotations.path.name}: training and evaluation stop, as {annotations.refused}'
        error = Finding('data', ERROR, what, REPAIR)
        annotations.findings.append(error)
        self.data.findings.append(error)

    def _classes(self, name: str, dataset: dict) -> tuple[str, ...]:
        """The class names that a data set of COCO JSON will use; empty for what cannot be checked."""
        type_name, metainfo = kind(dataset), dict_at(dataset, 'metainfo')
        classes, is_coco = metainfo.get('classes', metainfo.get('CLASSES')), type_name in PLAIN_COCO
        if classes is None or not is_coco:
            from mmdet.registry import DATASETS  # slow to import, and most configs say all that is needed

            found = DATASETS.get(dataset.get('type') or 'none')
            if found is None:
                what = f'{name}: the data set type {dataset.get("type")!r} is not known'
                self.find(ERROR, what, 'write its scope (mmdet_detr_plugin.StrictCocoDataset), or add custom_imports')
                return ()
            is_coco = any(base.__name__ == 'CocoDataset' for base in found.__mro__)
            classes = getattr(found, 'METAINFO', {}).get('classes') if classes is None else classes
        if not is_coco:
            what = f'{name}: data sets of type {type_name} are not read here; nothing of it was checked'
            self.find(NOTE, what, 'convert it to COCO JSON with tools/convert_dataset.py to have it checked')
            return ()
        if isinstance(classes, str) and Path(classes).is_file():  # as mmengine does
            classes = Path(classes).read_text().splitlines()
        if isinstance(classes, str):
            what = f'{name}: metainfo.classes is the string {classes!r}, which counts as {len(classes)} classes of one letter'
            self.find(ERROR, what, f'write a tuple with a comma: classes=({classes!r},)')
            return ()
        if not classes:
            self.find(ERROR, f'{name}: the data set has no class names', 'set metainfo=dict(classes=(...))')
        return tuple(classes or ())
