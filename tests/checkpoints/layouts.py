"""State dicts in the layouts of other implementations, generated from their names and shapes."""

import torch
from torch import Tensor


def resnet(blocks: tuple[int, ...] = (2, 2, 2, 2), bottleneck: bool = False) -> dict[str, tuple[int, ...]]:
    """torchvision's names, without ``fc`` and counters."""
    shapes = {'conv1.weight': (64, 3, 7, 7), **norm('bn1', 64)}
    inputs = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 * 2**stage
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            prefix = f'layer{stage}.{block}'
            kernels = (
                [(width, inputs, 1), (width, width, 3), (outputs, width, 1)] if bottleneck else [(width, inputs, 3), (width, width, 3)]
            )
            for number, (out, into, kernel) in enumerate(kernels, start=1):
                shapes |= {f'{prefix}.conv{number}.weight': (out, into, kernel, kernel), **norm(f'{prefix}.bn{number}', out)}
            if block == 0 and inputs != outputs:
                shapes |= {f'{prefix}.downsample.0.weight': (outputs, inputs, 1, 1), **norm(f'{prefix}.downsample.1', outputs)}
            inputs = outputs
    return shapes


def norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f'{prefix}.{name}': (channels,) for name in ('weight', 'bias', 'running_mean', 'running_var')}


def linear(prefix: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f'{prefix}.weight': (out, into), f'{prefix}.bias': (out,)}


def layer_norm(prefix: str, dims: int) -> dict[str, tuple[int, ...]]:
    return {f'{prefix}.weight': (dims,), f'{prefix}.bias': (dims,)}


def attention(prefix: str, dims: int) -> dict[str, tuple[int, ...]]:
    return {f'{prefix}.in_proj_weight': (3 * dims, dims), f'{prefix}.in_proj_bias': (3 * dims,), **linear(f'{prefix}.out_proj', dims, dims)}


def official(
    rows: int = 92, dims: int = 32, feedforward: int = 64, queries: int = 10, learned: bool = False, pre_norm: bool = False, **backbone
):
    """facebookresearch/detr: 2 encoder and 3 decoder layers."""
    shapes = {f'backbone.0.body.{name}': shape for name, shape in resnet(**backbone).items()}
    channels = 2048 if backbone.get('bottleneck') else 512
    if learned:
        shapes |= {f'backbone.1.{axis}_embed.weight': (50, dims // 2) for axis in ('row', 'col')}
    for part, count, norms in (('encoder', 2, 2), ('decoder', 3, 3)):
        for layer in range(count):
            prefix = f'transformer.{part}.layers.{layer}'
            shapes |= attention(f'{prefix}.self_attn', dims)
            if part == 'decoder':
                shapes |= attention(f'{prefix}.multihead_attn', dims)
            shapes |= linear(f'{prefix}.linear1', feedforward, dims) | linear(f'{prefix}.linear2', dims, feedforward)
            for number in range(1, norms + 1):
                shapes |= layer_norm(f'{prefix}.norm{number}', dims)
    shapes |= layer_norm('transformer.decoder.norm', dims) | (layer_norm('transformer.encoder.norm', dims) if pre_norm else {})
    shapes |= {'input_proj.weight': (dims, channels, 1, 1), 'input_proj.bias': (dims,), 'query_embed.weight': (queries, dims)}
    shapes |= linear('class_embed', rows, dims)
    for layer, out in enumerate((dims, dims, 4)):
        shapes |= linear(f'bbox_embed.layers.{layer}', out, dims)
    return shapes


def demo(rows: int = 92, dims: int = 32, feedforward: int = 64) -> dict[str, tuple[int, ...]]:
    """The notebook's model: torchvision's ResNet with counters, ``nn.Transformer`` with 2 encoder and 3 decoder layers."""
    shapes = {f'backbone.{name}': shape for name, shape in resnet().items()}
    shapes |= {name.replace('running_var', 'num_batches_tracked'): () for name in list(shapes) if name.endswith('running_var')}
    for name, shape in official(dims=dims, feedforward=feedforward, pre_norm=True).items():
        if name.startswith('transformer.'):
            shapes[name] = shape
    shapes |= {'conv.weight': (dims, 512, 1, 1), 'conv.bias': (dims,), 'query_pos': (10, dims)}
    shapes |= {'row_embed': (50, dims // 2), 'col_embed': (50, dims // 2)}
    return shapes | linear('linear_class', rows, dims) | linear('linear_bbox', 4, dims)


def panoptic(rows: int = 251, heads: int = 8, **detector) -> dict[str, tuple[int, ...]]:
    shapes = {f'detr.{name}': shape for name, shape in official(rows, **detector).items()}
    return shapes | mask_head(heads, (256, 512, 1024) if detector.get('bottleneck') else (64, 128, 256))


def mask_head(heads: int = 8, channels: tuple[int, int, int] = (64, 128, 256)) -> dict[str, tuple[int, ...]]:
    """Of facebookresearch/detr, for 32 channels of the transformer and the backbone's channels at strides 4, 8 and 16."""
    shapes = linear('bbox_attention.q_linear', 32, 32) | linear('bbox_attention.k_linear', 32, 32)
    widths = [32 + heads, 32 + heads, 16, 8, 4, 2]
    for layer in range(1, 6):
        shapes |= conv(f'mask_head.lay{layer}', widths[layer], widths[layer - 1], 3) | layer_norm(f'mask_head.gn{layer}', widths[layer])
    for number, (width, into) in enumerate(zip((16, 8, 4), channels[::-1], strict=True), start=1):
        shapes |= conv(f'mask_head.adapter{number}', width, into, 1)
    return shapes | conv('mask_head.out_lay', 1, 2, 3)


def conv(prefix: str, out: int, into: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f'{prefix}.weight': (out, into, kernel, kernel), f'{prefix}.bias': (out,)}


def detrex(rows: int = 81, torchvision_resnet: bool = False) -> dict[str, tuple[int, ...]]:
    """detrex's names, spelled out from its modules; detectron2's ResNet with a basic stem, or torchvision's, as its DC5 models have."""
    shapes = {}
    for name, shape in official(rows, bottleneck=True, blocks=(3, 4, 6, 3)).items():
        parts = name.split('.')
        if name.startswith('backbone.0.body.') and torchvision_resnet:
            new = ['backbone', *parts[2:]]
        elif name.startswith('backbone.0.body.'):
            parts = parts[3:]
            if parts[0] in ('conv1', 'bn1'):
                new = ['backbone', 'stem', 'conv1', *(['norm'] if parts[0] == 'bn1' else []), parts[-1]]
            elif 'downsample' in parts:
                new = ['backbone', f'res{int(parts[0][-1]) + 1}', parts[1], 'shortcut', *(['norm'] if parts[3] == '1' else []), parts[-1]]
            else:
                new = [
                    'backbone',
                    f'res{int(parts[0][-1]) + 1}',
                    parts[1],
                    f'conv{parts[2][-1]}',
                    *(['norm'] if 'bn' in parts[2] else []),
                    parts[-1],
                ]
        elif name.startswith('transformer.decoder.norm'):
            new = ['transformer', 'decoder', 'post_norm_layer', parts[-1]]
        elif name.startswith('transformer.'):
            inner = {
                'self_attn': ['attentions', '0', 'attn'],
                'multihead_attn': ['attentions', '1', 'attn'],
                'linear1': ['ffns', '0', 'layers', '0', '0'],
                'linear2': ['ffns', '0', 'layers', '1'],
                **{f'norm{number}': ['norms', str(number - 1)] for number in (1, 2, 3)},
            }
            new = [*parts[:4], *inner[parts[4]], *parts[5:]]
        else:
            new = parts
        shapes['.'.join(new)] = shape
    return shapes


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random values, small enough to compute with; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    values |= {name: torch.tensor(7) for name in shapes if name.endswith('num_batches_tracked')}
    return {name: value.abs() + 0.5 if name.endswith(('running_var', 'norm.weight')) else value for name, value in values.items()}
