"""Building the parts of a model, with errors that name the config's key."""

from difflib import get_close_matches
from importlib.util import find_spec

from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmengine.registry import DefaultScope, Registry

from ..registry import MODELS, SCOPE, TASK_UTILS

REGISTRIES = {MMDET_MODELS: MODELS, MMDET_TASK_UTILS: TASK_UTILS}


def build_model_part(cfg: dict, where: str):
    """mmdet's, the plugin's or another package's module; see ``_build``."""
    return _build(MMDET_MODELS, cfg, where)


def build_task_util(cfg: dict, where: str):
    """An assigner, a match cost; see ``_build``."""
    return _build(MMDET_TASK_UTILS, cfg, where)


def _build(registry: Registry, cfg: dict, where: str):
    """As ``registry.build``.

    Args:
        where: the config's key, for messages.

    Raises:
        ValueError: without ``type``; for a type that does not exist; and for a type without scope that both mmdet and the plugin have, or
            the plugin alone: the first would build mmdet's without a word.
    """
    own = REGISTRIES[registry]
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if kind is None:
        raise ValueError(
            f"{where} must be a dict with a type, such as dict(type='{SCOPE}.{next(iter(own.module_dict))}'); got {cfg!r:.200}"
        )
    if isinstance(kind, str):
        if '.' not in kind and kind in own.module_dict and _default_scope() != SCOPE:
            theirs = f", or 'mmdet.{kind}' if mmdet's is meant" if kind in registry.module_dict else ''
            raise ValueError(f"{where}.type {kind!r} has no scope, and would not be the plugin's class; write '{SCOPE}.{kind}'{theirs}")
        if registry.get(kind) is None:
            package = kind.partition('.')[0]
            if '.' in kind and find_spec(package) is None:
                raise ValueError(
                    f'{where}.type {kind!r} is of a package that is not installed here; install {package}, or take another type'
                )
            known = [f'{SCOPE}.{name}' for name in own.module_dict] + [f'mmdet.{name}' for name in registry.module_dict]
            near = get_close_matches(kind if '.' in kind else f'mmdet.{kind}', known, n=3)
            raise ValueError(f'{where}.type {kind!r} is not registered; {f"near it: {near}" if near else "is its package imported?"}')
    return registry.build(cfg)


def _default_scope() -> str | None:
    current = DefaultScope.get_current_instance()
    return current and current.scope_name


def check_counts(least: int = 1, **values: int) -> None:
    """Arguments that are whole numbers.

    Raises:
        ValueError: for another type, or less than ``least``, naming the argument.
    """
    for name, value in values.items():
        if type(value) is not int or value < least:
            raise ValueError(f'{name} must be a whole number of at least {least}, got {value!r}')


def checked_weights(given: dict | None, **default: float) -> dict[str, float]:
    """The default ``loss_weights`` with the given ones.

    Raises:
        ValueError: for a loss that there is not.
    """
    if unknown := sorted(set(given or {}) - set(default)):
        raise ValueError(f'loss_weights has no {", ".join(unknown)}; expected some of {", ".join(default)}')
    return default | dict(given or {})


def checked_loss(config: dict | None, default: dict, name: str, advice: str = '', **fixed) -> dict:
    """The default loss config with the given one's values.

    Raises:
        ValueError: for what would not be computed: another type, an unknown key, or another value of a fixed one. ``advice`` ends it.
    """
    merged = {**default, **(config or {})}
    kind = merged['type']  # a name, or in configs that are pure Python the class
    kind = default['type'] if kind is MMDET_MODELS.get(default['type']) else str(kind).removeprefix('mmdet.')
    if kind != default['type'] or set(merged) != set(default) or any(merged[key] != value for key, value in fixed.items()):
        raise ValueError(
            f'{name} must be {default["type"]} with the keys {sorted(set(default) - {"type"})}'
            f'{" and " + str(fixed) if fixed else ""}, got {config}{advice}'
        )
    return merged
