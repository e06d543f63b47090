"""Recognising whose weights a file holds, and translating them to the plugin's names and back."""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .rename import DEMO, MMDET, OFFICIAL, RenameTable, detrex_table, hf_table

# what panoptic models of facebookresearch/detr and HF have beside the detector; their detector's names then start with "detr."
MASK_PREFIXES = ('bbox_attention.', 'mask_head.')
MASK_HEAD = 'mask_head.'  # of the plugin
HF_ATTENTION = re.compile(r'(.+\.(?:self_attn|encoder_attn))\.([qkv])_proj\.(weight|bias)')
PACKED_ATTENTION = re.compile(r'(.+)\.in_proj_(weight|bias)')


@dataclass(frozen=True)
class Format:
    """An implementation's names. ``variant`` tells its dialects apart."""

    name: str
    variant: str = ''
    table: RenameTable | None = field(default=None, compare=False, repr=False)

    @property
    def splits_attention(self) -> bool:
        return self.name == 'hf'

    @property
    def has_mask_heads(self) -> bool:
        return self.name in ('plugin', 'official', 'hf') and self.variant != 'demo'

    def __str__(self) -> str:
        return f'{self.name} ({self.variant})' if self.variant else self.name


PLUGIN = Format('plugin', table=RenameTable([('*', '*')]))
HF_VARIANTS = {
    f'{"native" if native else "timm"} ResNet, {"state_dict" if in_memory else "file"} names': (native, in_memory)
    for native in (True, False)
    for in_memory in (False, True)
}
FORMATS = {
    ('plugin', ''): PLUGIN,
    ('official', ''): Format('official', table=OFFICIAL),
    ('official', 'demo'): Format('official', 'demo', table=DEMO),
    ('mmdet', ''): Format('mmdet', table=MMDET),
    ('detrex', ''): Format('detrex', table=detrex_table(torchvision_resnet=False)),
    ('detrex', 'torchvision ResNet'): Format('detrex', 'torchvision ResNet', detrex_table(torchvision_resnet=True)),
    **{('hf', variant): Format('hf', variant, hf_table(*arguments)) for variant, arguments in HF_VARIANTS.items()},
}


def recognise(weights: dict[str, Tensor]) -> Format:
    """Whose weights these are, by their names.

    Raises:
        ValueError: when they are none of a known DETR's, saying what they look like.
    """
    names = {name.removeprefix('detr.') for name in weights}

    def has(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    if has('neck.query_embed.') and has('bbox_head.box_mlp.'):
        return PLUGIN
    if 'class_labels_classifier.weight' in names and has('model.query_position_embeddings.'):
        native = has('model.backbone.conv_encoder.model.embedder.') or has('model.backbone.model.embedder.')
        in_memory = not has('model.backbone.conv_encoder.')
        return FORMATS['hf', next(variant for variant, arguments in HF_VARIANTS.items() if arguments == (native, in_memory))]
    if {'query_pos', 'row_embed', 'col_embed', 'linear_class.weight'} <= names:
        return FORMATS['official', 'demo']
    if 'query_embedding.weight' in names and has('bbox_head.fc_reg.') and has('encoder.layers.'):
        return FORMATS['mmdet', '']
    if 'class_embed.weight' in names and 'query_embed.weight' in names and has('transformer.decoder.'):
        if has('backbone.0.body.'):
            return FORMATS['official', '']
        if has('backbone.stem.'):
            return FORMATS['detrex', '']
        if has('backbone.body.'):
            return FORMATS['detrex', 'torchvision ResNet']
    raise ValueError(
        f'{_guess(has)}; found {", ".join(sorted(weights)[:5])} ... Expected a DETR of facebookresearch/detr (names such as '
        'class_embed.weight and backbone.0.body...), HF transformers (class_labels_classifier.weight), mmdet (query_embedding.weight and '
        'bbox_head.fc_reg...), detrex (class_embed.weight and backbone.stem... or .body...) or this plugin (neck.query_embed.weight)'
    )


def _guess(has) -> str:
    looks = {
        'transformer.level_embed': 'these are weights of Deformable DETR or a descendant',
        'fc.': 'these are weights of an image classifier',
        'rpn_head.': 'these are weights of a two-stage detector such as Faster R-CNN',
        'neck.query_embed.': 'these are weights of a part of the plugin',
        'bbox_attention.': 'these are weights of a mask head without its detector',
        'mask_head.attention.': 'these are weights of a mask head without its detector',
    }
    return next((text for start, text in looks.items() if has(start)), 'the weights belong to no DETR that is known here')


def pack_attention(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """HF's separate projections of queries, keys and values as one matrix each, ``in_proj_weight`` and ``in_proj_bias``."""
    packed = {}
    for name, value in weights.items():
        match = HF_ATTENTION.fullmatch(name)
        if not match:
            packed[name] = value
        elif match[2] == 'q':
            parts = [weights.get(f'{match[1]}.{letter}_proj.{match[3]}') for letter in 'qkv']
            if any(part is None for part in parts):
                raise ValueError(f'{match[1]} lacks some of q_proj, k_proj and v_proj .{match[3]}; the file is not whole')
            packed[f'{match[1]}.in_proj_{match[3]}'] = torch.cat(parts)
    return packed


def split_attention(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``pack_attention``."""
    split = {}
    for name, value in weights.items():
        if match := PACKED_ATTENTION.fullmatch(name):
            for letter, part in zip('qkv', value.chunk(3), strict=True):
                split[f'{match[1]}.{letter}_proj.{match[2]}'] = part.clone()
        else:
            split[name] = value
    return split


def to_plugin_names(weights: dict[str, Tensor], source: Format) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Detector and mask head under the plugin's names, and under their own detrex's loss buffers.

    Raises:
        ValueError: when a tensor has no place in the plugin, listing all of them, or two have the same.
    """
    aside = {name: value for name, value in weights.items() if source.name == 'detrex' and name.startswith('criterion.')}
    detector = {name.removeprefix('detr.'): value for name, value in weights.items() if name not in aside}
    if twice := [name for name in detector if name in weights and f'detr.{name}' in weights]:
        raise ValueError(f'the {source} file has {len(twice)} tensors twice, with detr. and without: {", ".join(sorted(twice)[:8])}')
    if source.splits_attention:
        detector = pack_attention(detector)
    renamed = {name: source.table.to_plugin(name) for name in detector}
    unknown = [name for name, ours in renamed.items() if ours is None]
    if unknown:
        raise ValueError(f'{len(unknown)} tensors of the {source} file have no place in the plugin: {", ".join(sorted(unknown))}')
    return {renamed[name]: value for name, value in detector.items()}, aside


def to_other_names(weights: dict[str, Tensor], target: Format, aside: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``to_plugin_names``; beside a mask head the detector's names start with ``detr.`` in other implementations.

    Raises:
        ValueError: when a parameter has no name there, listing all of them.
    """
    renamed = {name: target.table.to_other(name) for name in weights}
    unknown = [name for name, theirs in renamed.items() if theirs is None]
    if unknown:
        raise ValueError(f'{len(unknown)} parameters of the plugin have no name in {target}: {", ".join(sorted(unknown))}')
    state = {renamed[name]: value for name, value in weights.items()}
    if target.splits_attention:
        state = split_attention(state)
    if target is not PLUGIN and any(name.startswith(MASK_HEAD) for name in weights):
        state = {name if name.startswith(MASK_PREFIXES) else f'detr.{name}': value for name, value in state.items()}
    return {**state, **aside}
