"""From what a user names to what is trained: resolved configs, pointed at one data set, with one number of epochs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..config_files import annotation_file, annotation_files, dataset_chains, find_config, read_config
from ..datasets.conversion import converted_folder, is_converted
from ..datasets.data_configs import config_for_dataset, trains_on_segments
from ..files import sha256_of, write_atomically, write_json
from ..preflight.config_facts import backbone_weights
from ..preflight.finding import Finding
from ..preflight.folder import conversion_findings
from .evaluators import box_evaluator, check_evaluators

CURVE_POINTS = 10
HOOK_EPOCHS = ('switch_epoch', 'begin_epoch', 'stop_epoch', 'num_last_epochs')  # of mmdet's and mmengine's hooks
PLAIN_HOOK = 'mmdet_detr_plugin.PlainCheckpointHook'
MATCHING_HOOK = 'mmdet_detr_plugin.MatchingRecordHook'


@dataclass(frozen=True)
class Model:
    """One side of a comparison.

    Attributes:
        name: the config's file name without ``.py``.
        source: what the user named.
        cfg: resolved.
        conversion: what the conversion of its data has left out or changed.
    """

    name: str
    source: Path
    cfg: Config
    conversion: tuple[Finding, ...] = ()

    @property
    def epochs(self) -> int | None:
        """None for a training by iterations."""
        return self.cfg.train_cfg.get('max_epochs')


def load_models(configs: Sequence[Path], data: Path | None = None, epochs: int | None = None, work_dir: Path | None = None) -> list[Model]:
    """Resolve configs.

    Args:
        configs: files, or names of shipped configs.
        data: folder of ``tools/convert_dataset.py``, or a COCO, VOC or YOLO folder, which is converted into ``work_dir / 'data'``: its
            segments, when a config is for panoptic data.
        epochs: replaces the configs' own; drops of the rate move in proportion, warm-up by iterations stays.

    Raises:
        ValueError: for two configs of one name, a config that cannot be compared, or data that cannot be read.
        FileNotFoundError: for a config or folder that is not there.
    """
    paths = [find_config(Path(config)) for config in configs]
    names = [path.stem for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: runs are kept by the config's file name, which must differ between models")
    conversion: tuple[Finding, ...] = ()
    if data is not None:
        panoptic = any(trains_on_segments(read_config(path)) for path in paths)
        if work_dir is None and not is_converted(data / 'annotations' / 'train.json'):
            raise ValueError(f'{data} must be converted first: python tools/convert_dataset.py {data}{" --panoptic" * panoptic}')
        source = data
        data, records = converted_folder(data, work_dir, panoptic, may_change=False)
        conversion = tuple(conversion_findings(source, records.notes)) if records else ()
    models = []
    for path in paths:
        cfg = Config.fromstring(config_for_dataset(path, data), '.py') if data is not None else read_config(path)
        _check(cfg, path)
        if epochs is not None:
            set_epochs(cfg, epochs)
        models.append(Model(path.stem, path, cfg, conversion))
    return models


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the parts at their end that all share: ``detr_r18_1xb2-12e_coco`` beside ``faster-rcnn_r18_1xb2-12e_coco``
    becomes ``detr``."""
    parts = [name.split('_') for name in names]
    shared = 0
    while len(names) > 1 and all(len(part) > shared + 1 and part[-shared - 1] == parts[0][-shared - 1] for part in parts):
        shared += 1
    return {name: '_'.join(part[: len(part) - shared]) for name, part in zip(names, parts)}


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for so many epochs: what schedules and hooks count in epochs moves in proportion, drops of the rate never onto the last one.

    Raises:
        ValueError: for a number below 1, or a config that trains by iterations.
    """
    before = cfg.train_cfg.get('max_epochs')
    if epochs < 1 or not before:
        raise ValueError(f'epochs must be at least 1 and the config must train by epochs, got {epochs} and train_cfg {dict(cfg.train_cfg)}')

    def moved(epoch: int) -> int:
        return max(1, min(round(epoch * epochs / before), epochs))

    cfg.train_cfg.max_epochs = epochs
    if cfg.train_cfg.get('val_begin'):
        cfg.train_cfg.val_begin = moved(cfg.train_cfg.val_begin)
    for hook in cfg.get('custom_hooks') or []:
        for key in HOOK_EPOCHS:
            if hook.get(key):
                hook[key] = moved(hook[key])
    schedulers = list(cfg.get('param_scheduler') or [])
    for scheduler in schedulers:
        if scheduler.get('by_epoch', True):
            _move_schedule(scheduler, before, epochs, moved)
    # of a part that no epoch is left for mmengine says that its end is no later than its beginning
    cfg.param_scheduler = [item for item in schedulers if not item.get('by_epoch', True) or item.get('begin', 0) < item.get('end', epochs)]


def _move_schedule(scheduler: Config, before: int, epochs: int, moved: Callable[[int], int]) -> None:
    """Change a scheduler's epochs. A length that was that from begin to end stays that: rounded by itself, a cosine would rise again."""
    whole = scheduler.get('end', before) - scheduler.get('begin', 0)
    lengths = {key for key in ('T_max', 'total_iters', 'total_steps') if scheduler.get(key) == whole}
    for key in {'begin', 'end', 'T_max', 'step_size', 'total_iters', 'total_steps'} - lengths:
        if scheduler.get(key):
            scheduler[key] = moved(scheduler[key])
    for key in lengths:
        scheduler[key] = scheduler.get('end', epochs) - scheduler.get('begin', 0)
    if 'periods' in scheduler:
        scheduler.periods = [moved(period) for period in scheduler.periods]
    if 'milestones' in scheduler:
        scheduler.milestones = sorted({moved(epoch) for epoch in scheduler.milestones if moved(epoch) < epochs})


def training_config(model: Model, curve_points: int = CURVE_POINTS) -> Config:
    """What a run of a comparison trains: evaluated often enough for a curve, the newest checkpoint kept, matching recorded for DETR.

    Args:
        curve_points: how often it is evaluated in a training.
    """
    cfg = Config(model.cfg.to_dict())
    if model.epochs:
        cfg.train_cfg.val_interval = max(1, -(-model.epochs // curve_points))
    # every training is started with mmdet's --auto-scale-lr, which needs the batch size that the rates are meant for
    if (counts := cfg.optim_wrapper.get('accumulative_counts', 1)) > 1 and cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.base_batch_size /= counts  # mmengine leaves accumulated gradients out of the real batch size
    cfg.setdefault('auto_scale_lr', dict(enable=False, base_batch_size=cfg.train_dataloader.batch_size))
    _save_safely(cfg)
    _log_locally(cfg)
    cfg.default_hooks.logger.update(interval=min(cfg.default_hooks.logger.get('interval', 50), 10))
    if cfg.model.type == 'mmdet_detr_plugin.DETR' and _validates_boxes(cfg):
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=MATCHING_HOOK)]
    return cfg


def _validates_boxes(cfg: Config) -> bool:
    """Whether there are validation images and boxes that the record of matching can use."""
    try:
        box_evaluator(cfg, 'val')
    except ValueError:
        return False
    return bool(cfg.get('val_dataloader'))


def _save_safely(cfg: Config) -> None:
    """One checkpoint, the newest. mmengine's own hook loses it when it is killed at the wrong moment, and torch 2.6 does not read it."""
    checkpoint, hooks = cfg.default_hooks.checkpoint, list(cfg.get('custom_hooks') or [])
    checkpoint.max_keep_ckpts = 1
    if checkpoint.get('by_epoch', True):
        checkpoint.interval = 1
    if checkpoint.type in ('CheckpointHook', 'mmengine.CheckpointHook'):
        checkpoint.type = 'mmdet_detr_plugin.SafeCheckpointHook'
        if PLAIN_HOOK not in [hook.type for hook in hooks]:
            cfg.custom_hooks = [*hooks, dict(type=PLAIN_HOOK)]


def _log_locally(cfg: Config) -> None:
    """What a report tells of a training is read from the log of mmengine's local back-end; others may write beside it."""
    cfg.setdefault('visualizer', dict(type='mmdet.DetLocalVisualizer', name='visualizer'))
    backends = list(cfg.visualizer.get('vis_backends') or [])
    if not any(str(backend.get('type')).endswith('LocalVisBackend') for backend in backends):
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend'), *backends]


def write_settings(models: Sequence[Model], settings: dict, work_dir: Path, curve_points: int = CURVE_POINTS) -> dict[str, Path]:
    """Write the resolved configs below ``work_dir``, for runs that can be continued and repeated.

    Returns:
        File by the model's name.

    Raises:
        ValueError: when the folder holds a comparison with other settings, or of annotation files that have changed since.
    """
    texts = {model.name: training_config(model, curve_points).pretty_text for model in models}
    content = dict(settings=settings, configs=texts, annotations=_digests(models))
    kept = work_dir / 'comparison.json'
    if kept.is_file():
        earlier = json.loads(kept.read_text())
        changed = [name for name, text in texts.items() if earlier['configs'].get(name, text) != text]
        changed += [name for name, value in settings.items() if earlier['settings'].get(name) != value]
        known = earlier.get('annotations', {})
        changed += [name for name, digest in content['annotations'].items() if known.get(name, digest) != digest]
        if changed:
            raise ValueError(
                f'{work_dir} holds a comparison with other settings ({", ".join(changed)} changed); its runs would not be comparable. '
                'Choose another --work-dir, or delete it'
            )
        content['configs'] = {**earlier['configs'], **texts}
        content['annotations'] = {**known, **content['annotations']}
    files = {name: work_dir / 'configs' / f'{name}.py' for name in texts}
    for name, path in files.items():
        write_atomically(texts[name].encode(), path)
    write_json(kept, content)
    return files


def _digests(models: Sequence[Model]) -> dict[str, str]:
    """Of annotation files and weights, by path: finished runs started from these, and were trained and evaluated on these."""
    loaders = [model.cfg.get(f'{split}_dataloader') or {} for model in models for split in ('train', 'val', 'test')]
    files = {path for loader in loaders for path in annotation_files(loader)}
    for cfg in (model.cfg for model in models):
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        named = [cfg.get('load_from'), backbone_weights(cfg.to_dict()), *(evaluator.get('ann_file') for evaluator in evaluators)]
        files |= {Path(name) for name in named if name and '://' not in name}
    return {str(path): sha256_of(path) for path in sorted(files) if path.is_file()}


def _check(cfg: Config, path: Path) -> None:
    missing = [
        key for key in ('model', 'train_dataloader', 'test_dataloader', 'train_cfg', 'test_evaluator', 'optim_wrapper') if not cfg.get(key)
    ]
    if missing:
        raise ValueError(f'{path} is no complete training config: it has no {", ".join(missing)}')
    files = annotation_files(cfg.train_dataloader)
    others = [str(file) for file in files if file.is_file() and not _is_json_object(file)]
    if others or len(files) < len(dataset_chains(cfg.train_dataloader)):
        found = others[0] if others else 'a data set without ann_file'
        raise ValueError(
            f"{path}: comparisons are made on COCO's annotations, and train_dataloader reads {found}; "
            'convert the data with tools/convert_dataset.py, or name them with --data'
        )
    try:
        annotation_file(cfg.test_dataloader)
        check_evaluators(cfg)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _is_json_object(path: Path) -> bool:
    """Whether a file starts like COCO's annotations, which may be too large to be parsed only to know it."""
    with path.open('rb') as file:
        return file.read(100).lstrip().startswith(b'{')
