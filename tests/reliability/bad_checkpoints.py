"""Checkpoints: as a run meets them (evaluation, --resume, load_from), as the tools do, and as ``PretrainedBackbone`` does."""

import torch
from torch import nn

from mmdet_detr_plugin.checkpoints.convert_file import convert_file
from mmdet_detr_plugin.models import PretrainedBackbone

from ..checkpoints import layouts
from ..engine.tiny_training import TinyModel, tiny_runner
from .bad_input import ANNOUNCED, LOG, Project, Row, nothing


class Code:
    """What would be run when it is unpickled."""

    def __reduce__(self):
        return print, ('this file has run code',)


def saved(content: object):
    return lambda project: torch.save(content() if callable(content) else content, project.root / 'it.pth')


def sound(**values):
    return dict(state_dict=TinyModel().state_dict(), meta=dict(epoch=1, iter=3), **values)


def written(content: bytes):
    return lambda project: (project.root / 'it.pth').write_bytes(content)


def truncated(project: Project) -> None:
    saved(sound)(project)
    path = project.root / 'it.pth'
    path.write_bytes(path.read_bytes()[:-200])


def runner(project: Project, **changes):
    changes['custom_hooks'] = [
        dict(type=f'mmdet_detr_plugin.{name}') for name in ('EpochSeedHook', 'PlainCheckpointHook', 'CheckpointFitHook')
    ]
    return tiny_runner(project.work, load_from=str(project.root / 'it.pth'), **changes)


def evaluated(project: Project) -> None:
    runner(project).val()


def resumed(project: Project) -> None:
    runner(project, resume=True).train()


def started(project: Project) -> None:
    runner(project, epochs=1).train()


class HalfFrozen(TinyModel):
    pretrained_prefixes = ('linear.',)


def started_frozen(project: Project) -> None:
    runner(project, epochs=1, model=HalfFrozen()).train()


def started_from_nothing(project: Project) -> None:
    hooks = [dict(type=f'mmdet_detr_plugin.{name}') for name in ('EpochSeedHook', 'CheckpointFitHook')]
    tiny_runner(project.work, custom_hooks=hooks, epochs=1, model=HalfFrozen()).train()


def converted(project: Project) -> None:
    convert_file(project.root / 'it.pth', project.root / 'out.pth')


def as_backbone(project: Project) -> None:
    PretrainedBackbone(checkpoint=str(project.root / 'it.pth'))(nn.Conv2d(3, 3, 1))


def state(**values: torch.Tensor) -> dict:
    return dict(state_dict=dict(values), meta={})


WIDER = state(**{'linear.weight': torch.ones(1, 5), 'linear.bias': torch.ones(1)})
OTHER = state(**{'backbone.conv1.weight': torch.ones(8, 3, 7, 7), 'head.weight': torch.ones(4)})
HF = {'model.backbone.conv_encoder.model.conv1.weight': torch.ones(8, 3, 7, 7), 'class_labels_classifier.bias': torch.ones(92)}
HALF = state(**{'linear.bias': torch.ones(1)})
MORE = dict(state_dict={**TinyModel().state_dict(), 'neck.decoder.layers.5.norm1.bias': torch.ones(3)}, meta={})
CODE = 'it.pth holds more than tensors and plain values ( ... print), and was not opened, because such objects can run code'
BROKEN = 'it.pth is truncated or no checkpoint'


def row(goes_in: str, plant, meets, reads: str, **more) -> Row:
    return Row(goes_in, plant, meets, reads, **{**LOG, **more})


EVALUATION = [
    row('evaluation: another architecture', saved(OTHER), evaluated,
        "it.pth does not fit the config's TinyModel: 0 of its 2 weights fit; 2 are missing: linear.weight, linear.bias; 2 the model does "
        'not have: backbone.conv1.weight, head.weight. Expected a checkpoint that was trained with this config'),
    row('evaluation: another width', saved(WIDER), evaluated,
        '1 of its 2 weights fit; 1 have another shape: linear.weight (1, 5) instead of (1, 3)'),
    row('evaluation: a weight is missing', saved(HALF), evaluated, '1 of its 2 weights fit; 1 are missing: linear.weight'),
    row('evaluation: more layers than the model', saved(MORE), evaluated, '1 the model does not have: neck.decoder.layers.5.norm1.bias'),
    row("evaluation: HF's weights", saved(HF), evaluated, "0 of its 2 weights fit ... Another implementation's weights are converted by "
        'tools/convert_checkpoint.py'),
    row('evaluation: no file', nothing, evaluated, 'it.pth does not exist; expected a .pth, .bin or .safetensors file'),
    row('evaluation: a truncated file', truncated, evaluated, f'{BROKEN} ( ... ); download it again'),
    row('evaluation: an empty file', written(b''), evaluated, BROKEN),
    row('evaluation: a text', written(b'no checkpoint at all'), evaluated,
        f"{BROKEN} (it starts with b'no checkpoint at all'); download it again"),
    row('evaluation: a tensor', saved(torch.ones(3)), evaluated, 'it.pth holds a Tensor; expected a dict of weights'),
    row('evaluation: a file that carries code', saved(lambda: sound(extra=Code())), evaluated, CODE),
]  # fmt: skip

TRAINING = [
    row('--resume: another architecture', saved(OTHER), resumed, "it.pth does not fit the config's TinyModel: 0 of its 2 weights fit"),
    row('--resume: another width', saved(WIDER), resumed, '1 have another shape: linear.weight (1, 5) instead of (1, 3)'),
    row('--resume: a truncated file', truncated, resumed,
        'the checkpoint to resume from, it.pth, cannot be read ( ... ); name another one'),
    row('load_from: nothing fits', saved(OTHER), started, "it.pth does not fit the config's TinyModel: 0 of its 2 weights fit"),
    row('load_from: some weights start anew', saved(HALF), started, 'missing keys in source state_dict: linear.weight', outcome=ANNOUNCED,
        kept='everything; the training goes on'),
    row('load_from: a frozen weight is missing', saved(HALF), started_frozen,
        'it.pth does not bring all the weights that HalfFrozen freezes: 1 are missing: linear.weight. They would stay random. Write '
        'load_from=FILE, with a checkpoint that holds them all'),
    row('load_from: a frozen weight of another width', saved(WIDER), started_frozen,
        '1 have another shape: linear.weight (1, 5) instead of (1, 3). They would stay random'),
    row('no load_from for a model with frozen weights', nothing, started_from_nothing,
        'HalfFrozen freezes the weights linear.*, and nothing was loaded: they would stay random. Write load_from=FILE'),
    row('load_from: a file that carries code', saved(lambda: sound(extra=Code())), started, CODE),
]  # fmt: skip

CONVERSION = [
    row('convert: weights of no DETR', saved(OTHER), converted, 'belong to no DETR that is known here; found backbone', kept='everything'),
    row('convert: a truncated file', truncated, converted, BROKEN, kept='everything'),
    row('convert: a file that carries code', saved(lambda: sound(extra=Code())), converted, CODE, kept='everything'),
    row('convert: a weight is missing', saved(lambda: dict(model=_without_one())), converted, 'missing in the file: neck.',
        kept='everything'),
    row('ImageNet weights of another network', saved(dict(conv1=torch.ones(3))), as_backbone,
        'it.pth does not fit Conv2d: of its 2 weights 2 are missing (weight, bias ...)', kept='everything'),
    row('ImageNet weights: a text', written(b'<html>not found</html>'), as_backbone,
        'The pretrained backbone it.pth could not be read ... Either download that file', kept='everything'),
]  # fmt: skip


def _without_one() -> dict:
    weights = layouts.filled(layouts.official(rows=6))
    del weights['transformer.decoder.layers.0.norm1.weight']
    return weights


ROWS = [*EVALUATION, *TRAINING, *CONVERSION]
