"""The mask head of a panoptic model on its way through a conversion."""

from mmengine.config import Config

from .architecture import attention_maps, shapes_of
from .conversion import PluginWeights
from .formats import MASK_HEAD, Format

TIED = ('official', 'hf')  # whose transformer and mask head have the same number of attention heads


def fit_mask_head(weights: PluginWeights, target: Format, cfg: Config | None, config: object = None) -> list[str]:
    """Set the mask head aside where the config or the target has no place for it; what was done, for people.

    Args:
        cfg: the plugin's config that the weights must fit.
        config: its name, for messages.

    Raises:
        ValueError: when the config has a mask head and the file none, or other attention heads than the file shows.
    """
    wanted = None if cfg is None else cfg.model.get('mask_head')
    maps = attention_maps(shapes_of(weights.state))
    if maps is None:
        if wanted:
            raise ValueError(
                f'the {weights.found} file has no mask head, and {config} has one; convert with a config without it (mask_head=None, as in '
                'the first stage of training), and name the result in load_from: the mask head then starts anew'
            )
        return []
    if cfg is not None:
        _check_heads(weights, maps, cfg, config)
    if target.has_mask_heads and (cfg is None or wanted):
        return []
    count = set_aside(weights)
    left = 'kept aside' if target.name == 'plugin' else 'left out'
    return [f'{count} tensors of the mask head are {left}: {config if target.has_mask_heads else target} has none']


def _check_heads(weights: PluginWeights, maps: int, cfg: Config, config: object) -> None:
    """Attention heads leave no trace in the transformer's weights, and other ones would compute something else in silence."""
    parts = {'mask_head': cfg.model.get('mask_head')}
    if weights.source.name in TIED:
        parts['neck'] = cfg.model.neck
    for name, part in parts.items():
        if part and (heads := part.get('num_heads', 8)) != maps:
            raise ValueError(
                f'the mask head of the {weights.found} weights has {maps} attention heads'
                f'{", and with it the transformer" if name == "neck" else ""}; {config} has {name}.num_heads={heads}, set {maps}'
            )


def set_aside(weights: PluginWeights) -> int:
    """Move the mask head out of the weights, under the names of where they came from; how many tensors it has."""
    names = [name for name in weights.state if name.startswith(MASK_HEAD)]
    for name in names:
        value = weights.state.pop(name)
        if weights.source.has_mask_heads:
            weights.aside[weights.source.table.to_other(name)] = value
    return len(names)


def check_same_heads(model: dict, target: Format) -> None:
    """Refuse a model whose transformer and mask head have different attention heads where the target has one number for both.

    Raises:
        ValueError: then.
    """
    heads = [part.get('num_heads', 8) for part in (model['neck'], model.get('mask_head') or model['neck'])]
    if target.name in TIED and heads[0] != heads[1]:
        raise ValueError(
            f'{target.name} has as many attention heads in the mask head as in the transformer; the config has {heads[1]} and {heads[0]}'
        )
