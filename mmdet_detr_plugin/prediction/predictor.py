"""A trained detector, of the plugin or any of mmdet's, on images in batches."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from mmcv.transforms import Compose
from mmdet.evaluation import get_classes
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from ..config_files import dataset_chains
from .inputs import Frame
from .pipeline import steps_from_pixels
from .trained_model import load_model


class Predictor:
    """Detections of frames by the config's own test pipeline.

    Args:
        cfg: a config with ``test_dataloader``.
        checkpoint: its weights.
        device: such as 'cpu' or 'cuda'.
        batch_size: images at a time; they are padded to one size.

    Raises:
        FileNotFoundError: when there is no such checkpoint.
        ValueError: when the config has no one test pipeline that starts with loading an image, the checkpoint is not of this model, or
            nothing names all of its classes.
    """

    def __init__(self, cfg: Config, checkpoint: Path, device: str = 'cpu', batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f'the batch size must be at least 1, got {batch_size}')
        self.pipeline = Compose(steps_from_pixels(cfg))
        self.batch_size = batch_size
        self.model = load_model(cfg, checkpoint, device)
        num_classes, self.num_things_classes = _class_counts(self.model)
        self.classes = _class_names(cfg, self.model, num_classes)

    def __call__(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, DetDataSample | None]]:
        """Frames in their order, each with ``pred_instances`` in its own pixels; None for a frame with a problem.

        A frame that the pipeline or the network cannot take gets a ``problem`` here; the others of its batch are not lost.
        """
        stream = iter(frames)
        while batch := list(islice(stream, self.batch_size)):
            yield from zip(batch, self._predict(batch), strict=True)

    def _predict(self, batch: list[Frame]) -> list[DetDataSample | None]:
        results: list[DetDataSample | None] = [None] * len(batch)
        prepared = {}
        for index, frame in enumerate(batch):
            if frame.problem is None:
                try:
                    prepared[index] = self.pipeline(dict(img=frame.pixels, img_id=index))
                except Exception as error:  # whatever a transform raises is this image's problem
                    frame.problem = f'the test pipeline failed: {type(error).__name__}: {error}'
        for index, found in together_or_alone(list(prepared), lambda group: self._detect([prepared[i] for i in group]), Exception):
            if isinstance(found, Exception):
                batch[index].problem = f'the network failed: {type(found).__name__}: {found}'
            else:
                results[index] = found
        return results

    @torch.no_grad()
    def _detect(self, prepared: list[dict]) -> list[DetDataSample]:
        return self.model.test_step(pseudo_collate(copy.deepcopy(prepared)))


def together_or_alone(
    indices: Sequence[int], run: Callable[[list[int]], Sequence], errors: type[Exception] | tuple[type[Exception], ...]
) -> Iterator[tuple[int, object]]:
    """Run a batch; where it fails, its members one by one, so that only the culprit is lost.

    Returns:
        Each index with its result, or with the exception that it ended in.
    """
    groups = [list(indices)] if indices else []
    while groups:
        group = groups.pop()
        try:
            results = run(group)
        except errors as error:
            if len(group) > 1:
                groups += [[index] for index in group]
            else:
                yield group[0], error
            continue
        yield from zip(group, results, strict=True)


def _class_counts(model: nn.Module) -> tuple[int | None, int | None]:
    """How many classes a model has, and how many of them are things, where it tells those apart; None = it does not say."""
    for part in model.modules():
        if hasattr(part, 'num_things_classes'):
            return part.num_things_classes + part.num_stuff_classes, part.num_things_classes
    head = model.bbox_head if hasattr(model, 'bbox_head') else getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    return getattr(head, 'num_classes', None), None


def _class_names(cfg: Config, model: nn.Module, count: int | None) -> tuple[str, ...]:
    """Those of the checkpoint, of the config, of the config's type of data set, or COCO's; as many as the model has classes."""
    dataset = dataset_chains(cfg.get('test_dataloader') or {})[0][-1]
    data_type = DATASETS.get(dataset.get('type') or 'none')
    classes = tuple(model.dataset_meta.get('classes') or getattr(data_type, 'METAINFO', {}).get('classes') or get_classes('coco'))
    if count not in (None, len(classes)):
        raise ValueError(
            f'the model has {count} classes, but {len(classes)} names are known ({", ".join(classes[:5])} ...); expected one for each. '
            'Name them in test_dataloader.dataset.metainfo of the config'
        )
    return classes
