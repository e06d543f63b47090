"""Whether configs compare models under equal conditions, decided on what the configs resolve to.

Every setting that the runner reads belongs to one item below; what no rule names must be equal too, so nothing slips through.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmengine.config import Config

from ..config_files import flat, kind
from .batches import NotRepeatableError, first_difference

EQUAL, ALLOWED, UNFAIR = 'equal', 'allowed', 'unfair'
OTHER = 'other settings'
# What may differ between models that are compared, and why.
MAY_DIFFER = {
    'pad divisor': 'what the network needs of image sizes',
    'model': 'what is compared',
    'backbone': 'part of the model',
    'optimiser, rates, clipping': 'what each model trains best with',
    'loading, logging, saving, speed': 'changes no result',
}
# Dotted settings -> item; the first that matches counts. Pipelines, schedules and hooks are compared as lists, see _facts.
RULES = (
    (
        r'(train|val|test)_dataloader\.(num_workers|persistent_workers|pin_memory|prefetch_factor|timeout)',
        'loading, logging, saving, speed',
    ),
    (r'train_dataloader\.batch_size', 'batch size'),
    (r'train_dataloader\.(.+\.)?(filter_cfg|filter_empty_gt)\b', 'images without objects'),
    (r'train_dataloader\.(dataset\.|collate_fn)', 'training data'),
    (r'train_dataloader\.', 'order and batching'),
    (r'(val|test)_dataloader\.dataset\.', 'evaluation data'),
    (r'(val|test)_cfg\.fp16', 'precision'),
    (r'(val|test)_(dataloader|evaluator|cfg)\b', 'evaluation'),
    (r'train_cfg\.(val_begin|val_interval|dynamic_intervals)', 'evaluation'),
    (r'train_cfg\.', 'epochs or iterations'),
    (r'optim_wrapper\.(type|dtype|loss_scale|use_fp16)\b', 'precision'),
    (r'optim_wrapper\.accumulative_counts', 'batch size'),
    (r'optim_wrapper\.|auto_scale_lr\.', 'optimiser, rates, clipping'),
    (r'(model\.)?data_preprocessor\.(mean|std)\b', 'normalisation'),
    (r'(model\.)?data_preprocessor\.(bgr_to_rgb|rgb_to_bgr)', 'channel order'),
    (r'(model\.)?data_preprocessor\.batch_augments', 'batch augmentation'),
    (r'(model\.)?data_preprocessor\.pad_size_divisor', 'pad divisor'),
    (r'(model\.)?data_preprocessor\.', 'other preprocessing'),
    (r'model\.backbone\.init_cfg|load_from|model\.init_cfg', 'pretrained weights'),
    (r'model\.backbone\.', 'backbone'),
    (r'model\.|custom_imports', 'model'),
    (r'randomness\.', 'seed'),
    (
        r'(resume|work_dir|experiment_name|visualizer|log_processor|log_level|default_hooks|env_cfg|compile|launcher)\b',
        'loading, logging, saving, speed',
    ),
)
RUNNER_SETTINGS = (
    *('model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr'),
    *('optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks', 'data_preprocessor'),
    *('load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer', 'default_scope', 'randomness'),
    *('experiment_name', 'runner_type', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'fp16', 'tta_model', 'tta_pipeline'),
)
# Settings of backbones that any of their files fits.
NOT_OF_WEIGHTS = ('frozen_stages', 'norm_eval', 'norm_cfg', 'out_indices', 'with_cp', 'strides', 'dilations', 'out_levels')
SCALE_SETTINGS = ('scale', 'scales', 'scale_factor', 'img_scale', 'ratio_range', 'crop_size', 'size', 'keep_ratio')


@dataclass(frozen=True)
class AuditItem:
    """One condition.

    Attributes:
        item: its name.
        verdict: ``EQUAL``, ``ALLOWED`` (differs, and may) or ``UNFAIR`` (differs, and must not).
        values: text for each config: the value where all are equal, else what differs.
        note: why it may differ, or what to do.
    """

    item: str
    verdict: str
    values: tuple[str, ...]
    note: str = ''


def audit(cfgs: Sequence[Config]) -> list[AuditItem]:
    """Compare resolved configs, item by item; equal ones first.

    Raises:
        ValueError: for fewer than two configs.
    """
    if len(cfgs) < 2:
        raise ValueError(f'a comparison needs at least two configs, got {len(cfgs)}')
    facts = [_facts(cfg) for cfg in cfgs]
    backbones = [fact.get('backbone', {}) for fact in facts]
    names = dict.fromkeys(name for fact in facts for name in fact)
    order = (EQUAL, ALLOWED, UNFAIR)
    items = (_compare(name, [fact.get(name, {}) for fact in facts], backbones) for name in names)
    return sorted(items, key=lambda item: order.index(item.verdict))


def is_fair(items: Sequence[AuditItem]) -> bool:
    return all(item.verdict != UNFAIR for item in items)


def delivered_item(cfgs: Sequence[Config], batches: int) -> AuditItem:
    """What the loaders deliver in the first batches of two epochs, sample by sample, pixel by pixel.

    Raises:
        OSError, ValueError: when the data cannot be read.
    """
    cfgs = [Config(cfg.to_dict()) for cfg in cfgs]
    for cfg in cfgs:
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    name = 'delivered samples'
    try:
        difference = first_difference(cfgs, epochs=2, max_batches=batches)
    except NotRepeatableError as error:
        difference = str(error)
    if difference is None:
        text = f'the same images, pixels and boxes in the same order in {batches} batches of 2 epochs'
        return AuditItem(name, EQUAL, (text,) * len(cfgs))
    advice = 'see "The same pixels for every model" in docs/training.md'
    return AuditItem(name, UNFAIR, ('the reference', *(difference,) * (len(cfgs) - 1)), advice)


def text_table(items: Sequence[AuditItem], names: Sequence[str], colour: bool = False) -> str:
    """For a terminal: one line for what is equal, one block for everything that differs."""
    red, plain = ('\033[31m', '\033[0m') if colour else ('', '')
    lines = ['equal: ' + ', '.join(item.item for item in items if item.verdict == EQUAL)]
    for verdict, title in ((ALLOWED, 'differs, and may'), (UNFAIR, 'DIFFERS, AND MUST NOT')):
        for item in items:
            if item.verdict == verdict:
                start, end = (red, plain) if verdict == UNFAIR else ('', '')
                lines.append(f'\n{start}{title}: {item.item} ({item.note}){end}')
                width = max(map(len, names))
                lines += [f'  {name:{width}}  {shorten(value, 600)}' for name, value in zip(names, item.values)]
    unfair = [item.item for item in items if item.verdict == UNFAIR]
    lines.append(f'\n{red}unfair: {", ".join(unfair)}{plain}' if unfair else '\nfair: only what may differ differs')
    return '\n'.join(lines)


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + '...'


def _facts(cfg: Config) -> dict[str, dict[str, object]]:
    """item -> setting -> value. Lists whose order counts (pipelines, schedules, hooks) have one setting for each entry."""
    content = {key: _plain(value) for key, value in cfg.to_dict().items() if key in RUNNER_SETTINGS}
    scope = content.pop('default_scope', 'mmdet') or 'mmdet'
    content = _with_scope(content, scope)
    facts: dict[str, dict[str, object]] = {}

    def add(item: str, setting: str, value: object) -> None:
        facts.setdefault(item, {})[setting] = value

    for loader in ('train', 'val', 'test'):
        dataset = (content.get(f'{loader}_dataloader') or {}).get('dataset') or {}
        pipelines = _take_pipelines(dataset)
        kind = 'train pipeline' if loader == 'train' else 'test pipeline'
        _add_list(add, kind, loader, [transform for pipeline in pipelines for transform in pipeline])
        add('image scale', loader, list(_found(pipelines, SCALE_SETTINGS)))
        _resolve_paths(dataset)
    _add_list(add, 'schedule shape with warm-up', 'scheduler', _relative_schedule(content))
    hooks = content.pop('custom_hooks', None) or []
    _add_list(add, 'EMA', 'hook', [hook for hook in hooks if 'EMA' in str(hook.get('type'))])
    _add_list(add, 'other hooks', 'hook', sorted((hook for hook in hooks if 'EMA' not in str(hook.get('type'))), key=repr))
    counts = (content.get('optim_wrapper') or {}).pop('accumulative_counts', 1)
    if 'batch_size' in (content.get('train_dataloader') or {}):
        content['train_dataloader']['batch_size'] *= counts
    for setting, value in flat(content).items():
        item = next((item for pattern, item in RULES if re.match(pattern, setting)), OTHER)
        if item == 'pretrained weights' and not setting.endswith(('checkpoint', 'load_from')):
            continue  # how it is loaded is no difference
        add(item, setting, value)
    facts.setdefault('pretrained weights', {'checkpoint': None})
    return facts


def _compare(name: str, facts: list[dict[str, object]], backbones: list[dict[str, object]]) -> AuditItem:
    settings = list(dict.fromkeys(setting for fact in facts for setting in fact))
    absent = object()
    differing = [setting for setting in settings if any(fact.get(setting, absent) != facts[0].get(setting, absent) for fact in facts[1:])]
    if not differing:
        return AuditItem(name, EQUAL, (_text(facts[0], settings),) * len(facts))
    if (
        name == 'pretrained weights'
        and all(fact.get('model.backbone.init_cfg.checkpoint') for fact in facts)
        and 'load_from' not in differing
        and _weights_fit_one_backbone_only(facts, backbones)
    ):
        note = "every model starts from its own backbone's weights; check that they come from the same data"
        return AuditItem(name, ALLOWED, tuple(_text(fact, differing) for fact in facts), note)
    verdict = ALLOWED if name in MAY_DIFFER else UNFAIR
    note = MAY_DIFFER.get(name, 'make it equal, or the comparison measures this too')
    return AuditItem(name, verdict, tuple(_text(fact, differing) for fact in facts), note)


def _weights_fit_one_backbone_only(facts: list[dict[str, object]], backbones: list[dict[str, object]]) -> bool:
    """Whether each kind of backbone starts from one file: two equal ones could start from the same."""
    by_kind: dict[str, object] = {}
    for fact, backbone in zip(facts, backbones):
        shape = {key: value for key, value in backbone.items() if key.split('.')[2] not in NOT_OF_WEIGHTS}
        shape['model.backbone.type'] = kind(shape.get('model.backbone.type')).removeprefix('Folded')  # the same weights
        file = fact['model.backbone.init_cfg.checkpoint']
        if by_kind.setdefault(repr(sorted(shape.items())), file) != file:
            return False
    return True


def _text(fact: Mapping[str, object], settings: Sequence[str], limit: int = 12) -> str:
    parts = [f'{setting}={fact[setting]!r}' if setting in fact else f'{setting} not set' for setting in settings[:limit]]
    return '; '.join(parts) + (f'; and {len(settings) - limit} more' if len(settings) > limit else '')


def _add_list(add, item: str, label: str, entries: Sequence[object]) -> None:
    """An entry counts by what it is and which of its kind it is, so that one that is missing does not make all later ones differ."""
    seen: dict[str, int] = {}
    add(item, f'{label}: number', len(entries))
    previous = 'the start'
    for entry in entries:
        kind = str(entry.get('type')) if isinstance(entry, Mapping) else repr(entry)
        seen[kind] = seen.get(kind, 0) + 1
        setting = f'{label}: {kind}' + (f' ({seen[kind]})' if seen[kind] > 1 else '')
        options = {key: value for key, value in entry.items() if key != 'type'} if isinstance(entry, Mapping) else {}
        add(item, f'{setting} after {previous}', options)
        previous = kind


def _plain(value: object) -> object:
    """Tuples as lists, so that only the values count."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _with_scope(value: object, scope: str) -> object:
    """Every ``type`` with the package it is looked up in; without ``_scope_``."""
    if isinstance(value, list):
        return [_with_scope(inner, scope) for inner in value]
    if not isinstance(value, dict):
        return value
    scope = value.get('_scope_') or scope
    named = {key: _with_scope(inner, scope) for key, inner in value.items() if key != '_scope_'}
    if isinstance(named.get('type'), str) and '.' not in named['type']:
        named['type'] = f'{scope}.{named["type"]}'
    return named


def _take_pipelines(dataset: dict) -> list[list]:
    """Remove and return the pipelines of a data set and of those inside it."""
    pipelines = [dataset.pop('pipeline')] if isinstance(dataset.get('pipeline'), list) else []
    inner = dataset.get('dataset'), *(dataset.get('datasets') or [])
    return [pipeline for each in inner if isinstance(each, dict) for pipeline in _take_pipelines(each)] + pipelines


def _resolve_paths(dataset: dict) -> None:
    """Annotation file and image folder as absolute paths, however they are written."""
    root = dataset.pop('data_root', None) or ''
    if isinstance(dataset.get('ann_file'), str) and '://' not in dataset['ann_file']:
        dataset['ann_file'] = os.path.abspath(os.path.join(root, dataset['ann_file']))
    for key, folder in (dataset.get('data_prefix') or {}).items():
        if isinstance(folder, str) and '://' not in folder:
            dataset['data_prefix'][key] = os.path.abspath(os.path.join(root, folder))
    for each in (dataset.get('dataset'), *(dataset.get('datasets') or [])):
        if isinstance(each, dict):
            _resolve_paths(each)


def _relative_schedule(content: dict) -> list[object]:
    """The schedulers, rates as fractions of the optimiser's."""
    schedulers = content.pop('param_scheduler', None) or []
    rate = ((content.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    relative = []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if rate and scheduler.get('eta_min'):
            scheduler = {**scheduler, 'eta_min_ratio': scheduler['eta_min'] / rate}
            del scheduler['eta_min']
        relative.append(scheduler)
    return relative


def _found(value: object, names: Sequence[str]):
    """Values of the named settings anywhere inside."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        if key in names:
            yield inner
        else:
            yield from _found(inner, names)
