"""A data folder of any known layout, checked as it comes: what its conversion would leave out or change, and a config that reads it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from ..config_files import find_config, read_config
from ..datasets.conversion import converted_folder
from ..datasets.data_configs import config_for_dataset, trains_on_segments
from .finding import WARNING, Finding


def config_for_folder(data: Path, work_dir: Path, config: Path | None = None) -> tuple[Config, list[Finding]]:
    """Point a config at a folder.

    Args:
        data: folder of ``tools/convert_dataset.py``, or a COCO, VOC or YOLO folder, which is converted below ``work_dir``:
            its segments for a panoptic config.
        config: a file, or the name of a shipped config; without one, the result has loaders only.

    Returns:
        The config, and what the reader of the folder has left out or changed.

    Raises:
        FileNotFoundError: when config, folder or images are not there.
        ValueError: when the folder has no layout that is known, or the config no ``num_classes``.
    """
    source = data
    panoptic = config is not None and trains_on_segments(read_config(config))
    data, records = converted_folder(data, work_dir, panoptic)
    findings = conversion_findings(source, records.notes if records else {})
    if config is not None:
        return Config.fromstring(config_for_dataset(find_config(config), data), '.py'), findings
    return Config({f'{loader}_dataloader': node for loader, node in _loaders(data).items()}), findings


def conversion_findings(source: Path, notes: Mapping[str, Sequence[str]]) -> list[Finding]:
    """What the reader of a folder has left out or changed: reason -> where."""
    advice = 'correct it in the source, if it is not meant'
    return [Finding('data', WARNING, f'{source}: {reason}: {len(where)}, the first: {where[0]}', advice) for reason, where in notes.items()]


def _loaders(data: Path) -> dict[str, dict]:
    """A loader for each split of a converted folder, without transforms."""
    loaders = {}
    for loader in ('train', 'val', 'test'):
        path = data / 'annotations' / f'{loader}.json'
        if path.is_file():
            content = json.loads(path.read_bytes())
            dataset = dict(
                type='mmdet_detr_plugin.StrictCocoDataset',
                ann_file=str(path.resolve()),
                data_prefix=dict(img=str((data / content['info']['image_root']).resolve())),
                metainfo=dict(classes=tuple(category['name'] for category in content['categories'])),
            )
            loaders[loader] = dict(dataset=dataset)
    return loaders
