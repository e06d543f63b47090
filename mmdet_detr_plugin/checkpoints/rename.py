"""Parameter names of other implementations, as two-way tables.

The names are facts of the checkpoints that each project publishes: facebookresearch/detr (``models/``), HF transformers (the files' keys
and those of version 5's ``state_dict()``, with a timm or a native ResNet), mmdet 3.x (``models/detectors/detr.py``), detrex
(``projects/detr``).
"""

import re
from collections.abc import Iterable

DIGITS, REST = r'(\d+)', r'(.+)'


class RenameTable:
    """Rules of (plugin's name, other name). ``{}`` stands for a number and ``*``, at the end, for the rest of the name; both sides have the
    same ones in the same order. The first rule that matches counts.
    """

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        rules = list(rules)
        self._to_other = [(_pattern(ours), _template(theirs)) for ours, theirs in rules]
        self._to_plugin = [(_pattern(theirs), _template(ours)) for ours, theirs in rules]

    def to_other(self, name: str) -> str | None:
        return _renamed(name, self._to_other)

    def to_plugin(self, name: str) -> str | None:
        return _renamed(name, self._to_plugin)


def _pattern(rule: str) -> re.Pattern:
    return re.compile(re.escape(rule).replace(r'\{\}', DIGITS).replace(r'\*', REST))


def _template(rule: str) -> str:
    return rule.replace('*', '{}')


def _renamed(name: str, rules: list[tuple[re.Pattern, str]]) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return template.format(*match.groups())
    return None


def _mask_head(state_dict_keys: bool = False) -> list[tuple[str, str]]:
    """The mask head of facebookresearch/detr, also in HF's files; ``state_dict_keys``: the names that HF's version 5 shows in memory."""
    if state_dict_keys:
        blocks = ['conv1', 'conv2', *(f'fpn_stages.{stage}.refine' for stage in range(3))]
        convs, norms = ([f'{block}.{part}' for block in blocks] for part in ('conv', 'norm'))
        adapters = [f'fpn_stages.{stage}.fpn_adapter' for stage in range(3)]
        projection, last = 'proj', 'output_conv'
    else:
        convs, norms = ([f'{part}{number}' for number in range(1, 6)] for part in ('lay', 'gn'))
        adapters = [f'adapter{number}' for number in (1, 2, 3)]
        projection, last = 'linear', 'out_lay'
    return [
        *((f'mask_head.attention.{letter}_linear.*', f'bbox_attention.{letter}_{projection}.*') for letter in 'qk'),
        *(
            (f'mask_head.mask_convs.{ours}.{index}.*', f'mask_head.{theirs}.*')
            for ours, names in dict(convs=convs, norms=norms, adapters=adapters).items()
            for index, theirs in enumerate(names)
        ),
        ('mask_head.mask_convs.conv_out.*', f'mask_head.{last}.*'),
    ]


OFFICIAL = RenameTable(
    [
        ('backbone.*', 'backbone.0.body.*'),
        ('neck.position_encoding.*', 'backbone.1.*'),
        ('neck.encoder.*', 'transformer.encoder.*'),
        ('neck.decoder.*', 'transformer.decoder.*'),
        ('neck.input_proj.*', 'input_proj.*'),
        ('neck.query_embed.*', 'query_embed.*'),
        ('bbox_head.fc_cls.*', 'class_embed.*'),
        ('bbox_head.box_mlp.*', 'bbox_embed.*'),
        *_mask_head(),
    ]
)

DEMO = RenameTable(
    [
        ('backbone.*', 'backbone.*'),
        ('neck.input_proj.*', 'conv.*'),
        ('neck.query_embed.weight', 'query_pos'),
        ('neck.position_encoding.row_embed.weight', 'row_embed'),
        ('neck.position_encoding.col_embed.weight', 'col_embed'),
        ('neck.transformer.*', 'transformer.*'),
        ('bbox_head.fc_cls.*', 'linear_class.*'),
        ('bbox_head.box_mlp.layers.0.*', 'linear_bbox.*'),
    ]
)

MMDET = RenameTable(
    [
        ('backbone.*', 'backbone.*'),
        ('neck.input_proj.*', 'neck.convs.0.conv.*'),
        ('neck.query_embed.*', 'query_embedding.*'),
        ('neck.decoder.norm.*', 'decoder.post_norm.*'),
        ('neck.encoder.layers.{}.self_attn.*', 'encoder.layers.{}.self_attn.attn.*'),
        ('neck.decoder.layers.{}.self_attn.*', 'decoder.layers.{}.self_attn.attn.*'),
        ('neck.decoder.layers.{}.multihead_attn.*', 'decoder.layers.{}.cross_attn.attn.*'),
        *(
            (f'neck.{part}.layers.{{}}.{ours}.*', f'{part}.layers.{{}}.{theirs}.*')
            for part in ('encoder', 'decoder')
            for ours, theirs in (
                ('linear1', 'ffn.layers.0.0'),
                ('linear2', 'ffn.layers.1'),
                ('norm1', 'norms.0'),
                ('norm2', 'norms.1'),
                ('norm3', 'norms.2'),
            )
        ),
        ('bbox_head.fc_cls.*', 'bbox_head.fc_cls.*'),
        ('bbox_head.box_mlp.layers.0.*', 'bbox_head.reg_ffn.layers.0.0.*'),
        ('bbox_head.box_mlp.layers.1.*', 'bbox_head.reg_ffn.layers.1.*'),
        ('bbox_head.box_mlp.layers.2.*', 'bbox_head.fc_reg.*'),
    ]
)


def detrex_table(torchvision_resnet: bool) -> RenameTable:
    """detrex, with detectron2's ResNet or, as its DC5 models have it, torchvision's."""
    return RenameTable(
        [
            *([('backbone.*', 'backbone.body.*')] if torchvision_resnet else _detectron2_resnet()),
            ('neck.decoder.norm.*', 'transformer.decoder.post_norm_layer.*'),
            ('neck.decoder.layers.{}.multihead_attn.*', 'transformer.decoder.layers.{}.attentions.1.attn.*'),
            *(
                (f'neck.{part}.layers.{{}}.{ours}.*', f'transformer.{part}.layers.{{}}.{theirs}.*')
                for part in ('encoder', 'decoder')
                for ours, theirs in (
                    ('self_attn', 'attentions.0.attn'),
                    ('linear1', 'ffns.0.layers.0.0'),
                    ('linear2', 'ffns.0.layers.1'),
                    ('norm1', 'norms.0'),
                    ('norm2', 'norms.1'),
                    ('norm3', 'norms.2'),
                )
            ),
            ('neck.position_encoding.*', 'position_embedding.*'),
            ('neck.input_proj.*', 'input_proj.*'),
            ('neck.query_embed.*', 'query_embed.*'),
            ('bbox_head.fc_cls.*', 'class_embed.*'),
            ('bbox_head.box_mlp.*', 'bbox_embed.*'),
        ]
    )


def _detectron2_resnet() -> list[tuple[str, str]]:
    return [
        ('backbone.conv1.weight', 'backbone.stem.conv1.weight'),
        ('backbone.bn1.*', 'backbone.stem.conv1.norm.*'),
        *(
            (f'backbone.layer{stage}.{{}}.{ours}', f'backbone.res{stage + 1}.{{}}.{theirs}')
            for stage in (1, 2, 3, 4)
            for ours, theirs in (
                ('downsample.0.weight', 'shortcut.weight'),
                ('downsample.1.*', 'shortcut.norm.*'),
                ('conv{}.weight', 'conv{}.weight'),
                ('bn{}.*', 'conv{}.norm.*'),
            )
        ),
    ]


def hf_table(native_resnet: bool, state_dict_keys: bool) -> RenameTable:
    """HF transformers, with packed attention projections (``formats.pack_attention``).

    Args:
        native_resnet: transformers' own ResNet; otherwise timm's, whose names are torchvision's.
        state_dict_keys: the names that version 5 shows in memory; otherwise those it writes to files, as all versions did.
    """
    backbone = 'model.backbone.model' if state_dict_keys else 'model.backbone.conv_encoder.model'
    mlp = 'mlp.' if state_dict_keys else ''
    out = 'o_proj' if state_dict_keys else 'out_proj'
    return RenameTable(
        [
            *(_native_resnet(backbone) if native_resnet else [('backbone.*', f'{backbone}.*')]),
            *(
                (f'neck.position_encoding.{ours}.*', f'model.{where}position_embedding.{theirs}.*')
                for where in ('', 'backbone.')  # version 5, and the older versions' files
                for ours, theirs in (('row_embed', 'row_embeddings'), ('col_embed', 'column_embeddings'))
            ),
            ('neck.input_proj.*', 'model.input_projection.*'),
            ('neck.query_embed.*', 'model.query_position_embeddings.*'),
            ('neck.decoder.norm.*', 'model.decoder.layernorm.*'),
            *(
                (f'neck.{part}.layers.{{}}.{ours}.*', f'model.{part}.layers.{{}}.{theirs}.*')
                for part in ('encoder', 'decoder')
                for ours, theirs in (
                    ('self_attn.out_proj', f'self_attn.{out}'),
                    ('multihead_attn.out_proj', f'encoder_attn.{out}'),
                    ('self_attn', 'self_attn'),
                    ('multihead_attn', 'encoder_attn'),
                    ('linear1', f'{mlp}fc1'),
                    ('linear2', f'{mlp}fc2'),
                    ('norm1', 'self_attn_layer_norm'),
                    ('norm2', 'final_layer_norm' if part == 'encoder' else 'encoder_attn_layer_norm'),
                    ('norm3', 'final_layer_norm'),
                )
                if part == 'decoder' or ours != 'norm3'
            ),
            ('bbox_head.fc_cls.*', 'class_labels_classifier.*'),
            ('bbox_head.box_mlp.*', 'bbox_predictor.*'),
            *_mask_head(state_dict_keys),
        ]
    )


def _native_resnet(prefix: str) -> list[tuple[str, str]]:
    rules = [
        ('backbone.conv1.weight', f'{prefix}.embedder.embedder.convolution.weight'),
        ('backbone.bn1.*', f'{prefix}.embedder.embedder.normalization.*'),
    ]
    for stage in (1, 2, 3, 4):
        ours, theirs = f'backbone.layer{stage}.{{}}', f'{prefix}.encoder.stages.{stage - 1}.layers.{{}}'
        rules += [(f'{ours}.downsample.0.weight', f'{theirs}.shortcut.convolution.weight')]
        rules += [(f'{ours}.downsample.1.*', f'{theirs}.shortcut.normalization.*')]
        for conv in (1, 2, 3):
            rules += [(f'{ours}.conv{conv}.weight', f'{theirs}.layer.{conv - 1}.convolution.weight')]
            rules += [(f'{ours}.bn{conv}.*', f'{theirs}.layer.{conv - 1}.normalization.*')]
    return rules
