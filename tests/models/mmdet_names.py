"""Parameter names of mmdet's DETR for those of the plugin, for parity tests."""

import re

RULES = (
    (r'^neck\.input_proj\.', 'neck.convs.0.conv.'),
    (r'^neck\.query_embed\.', 'query_embedding.'),
    (r'^neck\.decoder\.norm\.', 'decoder.post_norm.'),
    (r'^neck\.(encoder|decoder)\.', r'\1.'),
    (r'^(encoder|decoder)(.*)\.self_attn\.', r'\1\2.self_attn.attn.'),
    (r'\.multihead_attn\.', '.cross_attn.attn.'),
    (r'\.linear1\.', '.ffn.layers.0.0.'),
    (r'\.linear2\.', '.ffn.layers.1.'),
    (r'\.norm([123])\.', lambda match: f'.norms.{int(match[1]) - 1}.'),
    (r'^bbox_head\.box_mlp\.layers\.0\.', 'bbox_head.reg_ffn.layers.0.0.'),
    (r'^bbox_head\.box_mlp\.layers\.1\.', 'bbox_head.reg_ffn.layers.1.'),
    (r'^bbox_head\.box_mlp\.layers\.2\.', 'bbox_head.fc_reg.'),
)


def to_mmdet(state_dict: dict) -> dict:
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in RULES if not name.startswith('backbone.') else ():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
