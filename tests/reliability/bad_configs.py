"""Configs: models as mmdet builds them, and what a run checks before its first step."""

from pathlib import Path

from mmengine.config import Config

from mmdet_detr_plugin import preflight
from mmdet_detr_plugin.config_files import read_config

from ..builders import build, detr_config, make_batch
from ..engine.tiny_training import tiny_runner
from .bad_input import ANNOUNCED, DETR, LOG, WORKS, Project, Row, nothing


def model(goes_in: str, reads: str, drop: str = '', meets=None, **changes) -> Row:
    """A model's config with changes of its parts, or without a key."""

    def build_it(project: Project):
        config = detr_config(**changes)
        if drop:
            del config[drop.split('.')[0]][drop.split('.')[1]]
        build(config)

    return Row(goes_in, nothing, meets or build_it, reads)


def local_head(**values):
    return lambda project: build(dict(type='mmdet_detr_plugin.LocalDETRHead', **(dict(num_classes=4, embed_dims=32, num_heads=4) | values)))


def assigner(kind: str, **values) -> dict:
    return dict(train_cfg=dict(assigner=dict(type=kind, **values)))


def first_step(project: Project):
    """A backbone that gives other channels than the neck expects."""
    build(detr_config(neck=dict(in_channels=256))).loss(**make_batch([(64, 64)], [1]))


def too_many_objects(project: Project):
    """Three objects, two queries."""
    build(detr_config(neck=dict(num_queries=2, in_channels=64), backbone=dict(base_channels=8, stem_channels=8))).loss(
        **make_batch([(64, 64)], [3])
    )


def config_file(text: str):
    """A file that ``read_config`` meets, as every tool here does."""
    return lambda project: (project.root / 'mine.py').write_text(text)


def read(project: Project):
    read_config(project.root / 'mine.py')


def file_row(goes_in: str, text: str, reads: str) -> Row:
    return Row(goes_in, config_file(text), read, reads)


def recipe(goes_in: str, reads: str, **changes) -> Row:
    """What the pre-flight finds; tools/doctor.py prints it."""

    def meets(project: Project) -> str:
        findings = preflight.findings(Config.fromfile(project.root / DETR))
        return '; '.join(f'{found.severity}: {found.finding} -> {found.advice}' for found in findings if found.area in ('recipe', 'data'))

    return Row(f'doctor.py: {goes_in}', lambda project: project.config(**changes), meets, reads, WORKS)


def training(**changes):
    def meets(project: Project):
        tiny_runner(project.root / 'work', **changes).train()

    return meets


COUNT = 'must be a whole number of at least'
PLUGIN = 'mmdet_detr_plugin.'

MODELS = [
    model('an unknown type', f"neck.type '{PLUGIN}TransfomerNeck' is not registered; near it: ['{PLUGIN}TransformerNeck'",
          neck=dict(type=f'{PLUGIN}TransfomerNeck')),
    model("'DETRHead' without scope",
          f"bbox_head.type 'DETRHead' has no scope, and would not be the plugin's class; write '{PLUGIN}DETRHead', "
          "or 'mmdet.DETRHead' if mmdet's is meant", bbox_head=dict(type='DETRHead')),
    model("'HungarianAssigner' without scope", "train_cfg.assigner.type 'HungarianAssigner' has no scope ... or 'mmdet.HungarianAssigner'",
          bbox_head=assigner('HungarianAssigner')),
    model("'TransformerNeck' without scope", f"neck.type 'TransformerNeck' has no scope ... write '{PLUGIN}TransformerNeck'",
          neck=dict(type='TransformerNeck')),
    model('a part without type', f"neck must be a dict with a type, such as dict(type='{PLUGIN}", drop='neck.type'),
    model('a type of a package that is missing', "backbone.type 'mmpretrain.ConvNeXt' is of a package that is not installed here; install "
          'mmpretrain, or take', backbone=dict(type='mmpretrain.ConvNeXt')),
    model('an unknown match cost', "match_costs.type 'mmdet.FocalCost' is not registered; near it: ['mmdet.FocalLossCost'",
          bbox_head=assigner(f'{PLUGIN}HungarianAssigner', match_costs=[dict(type='mmdet.FocalCost')])),
    model('no match cost', 'match_costs must name at least one cost; leave it out for the costs of the paper',
          bbox_head=assigner(f'{PLUGIN}HungarianAssigner', match_costs=[])),
    model('a loss of another kind',
          "loss_cls must be CrossEntropyLoss with ... got {'type': 'FocalLoss'}. For other losses use mmdet.DETRHead",
          bbox_head=dict(loss_cls=dict(type='FocalLoss'))),
    model('embed_dims not divisible by num_heads',
          'embed_dims must be divisible by num_heads, got 32 and 5; change one', neck=dict(num_heads=5)),
    model('no heads', f'num_heads {COUNT} 1, got 0', neck=dict(num_heads=0)),
    model('an odd number of position features', 'num_feats must be even (pairs of sine and cosine), got 15',
          neck=dict(embed_dims=30, num_heads=2), bbox_head=dict(embed_dims=30)),
    model('a position encoding of another width', 'The position encoding has 128 channels (2 x num_feats), embed_dims is 32; set',
          neck=dict(position_encoding=dict(type=f'{PLUGIN}SinePositionEncoding', num_feats=64))),
    model('neck and head of different widths', 'neck.embed_dims is 32, bbox_head.embed_dims is 64; they must be equal',
          bbox_head=dict(embed_dims=64)),
    model('negative decoder layers', f'num_decoder_layers {COUNT} 1, got -1', neck=dict(num_decoder_layers=-1)),
    model('negative encoder layers', f'num_encoder_layers {COUNT} 0, got -2', neck=dict(num_encoder_layers=-2)),
    model('no queries', f'num_queries {COUNT} 1, got 0', neck=dict(num_queries=0)),
    model('channels as text', f"feedforward_channels {COUNT} 1, got '64'", neck=dict(feedforward_channels='64')),
    model('dropout above 1', 'dropout probability has to be between 0 and 1, but got 1.5', neck=dict(dropout=1.5)),
    model('no classes', 'num_classes counts the classes without no-object and must be a whole number of at least 1, got 0',
          bbox_head=dict(num_classes=0)),
    model('a negative max_per_img', f'max_per_img {COUNT} 1, got -3', bbox_head=dict(test_cfg=dict(max_per_img=-3))),
    model('LocalDETR: no decoder layers', f'num_decoder_layers {COUNT} 1, got 0', meets=local_head(num_decoder_layers=0)),
    model('LocalDETR: no points in a box', f'num_points {COUNT} 1, got 0', meets=local_head(num_points=0)),
    model('LocalDETR: no channels in the feed-forward block', f'feedforward_channels {COUNT} 1, got 0',
          meets=local_head(feedforward_channels=0)),
    model('LocalDETR: negative convolutions', f'num_dense_convs {COUNT} 0, got -1', meets=local_head(num_dense_convs=-1)),
    model('LocalDETR: max_per_img 0', f'max_per_img {COUNT} 1, got 0', meets=local_head(test_cfg=dict(max_per_img=0))),
    model('LocalDETR: a box that is shrunk to nothing', 'view_scale is what a box is enlarged by before it is looked into, and must be '
          'above 0, got 0', meets=local_head(view_scale=0)),
    model('LocalDETR: the weight of a loss that it has not',
          'loss_weights has no loss_giou; expected some of loss_cls, loss_bbox, loss_iou',
          meets=local_head(loss_weights=dict(loss_giou=2.0))),
    model('LocalDETR: another assigner', "LocalDETRHead needs mmdet_detr_plugin.HungarianAssigner with costs of the paper's form",
          meets=local_head(train_cfg=dict(assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)))),
    model('a key that is missing',
          "TransformerNeck.__init__() missing 1 required positional argument: 'in_channels'", drop='neck.in_channels'),
    model('a key that does not exist',
          "TransformerNeck.__init__() got an unexpected keyword argument 'num_layers'", neck=dict(num_layers=3)),
    model('another number of channels than the backbone gives', 'The neck expects 256 input channels, the backbone gives 512; set '
          'model.neck.in_channels=512', meets=first_step),
    Row('more objects in an image than queries', nothing, too_many_objects,
        "An image has 3 objects, the model 2 queries ... Raise the model's "
        'num_queries', ANNOUNCED),
]  # fmt: skip

FILES = [
    Row(
        'a config that does not exist',
        nothing,
        lambda project: read_config(Path('detr_r50_coco.py')),
        "has no config 'detr_r50_coco.py'; near",
    ),
    file_row('a config that is no Python', 'model = dict(', 'mine.py cannot be read as a config (SyntaxError'),
    file_row('a config that raises', 'x = 1 / 0', 'mine.py cannot be read as a config (ZeroDivisionError: division by zero); correct it'),
    file_row('a config without a model', 'lr = 1', "mine.py is no detection config: it must have model=dict(type=...), and has ['lr']"),
    file_row(
        'a base that does not exist', "_base_ = 'no.py'", 'mine.py inherits a config that does not exist ... no.py ... correct its _base_'
    ),
    file_row(
        "model.type 'DETR' without scope",
        "model = dict(type='DETR', neck=dict(type='mmdet_detr_plugin.TransformerNeck'))",
        "mine.py: model.type 'DETR' has no scope, and would not be the plugin's class, as its parts are; write 'mmdet_detr_plugin.DETR'",
    ),
]
RUNS = [
    Row('no seed', nothing, training(randomness=dict(seed=None)), 'randomness.seed is not set; write randomness=dict(seed=0)', **LOG),
    Row('another seed for each rank', nothing, training(randomness=dict(seed=0, diff_rank_seed=True)), 'diff_rank_seed must be False',
        **LOG),
    recipe('fewer outputs than classes', 'error: ... num_classes ... 3 ... 4', model__bbox_head__num_classes=3),
    recipe('milestones after the end', 'warning: MultiStepLR: the milestones [100] lie at or beyond the end of the training (1 epochs)',
           param_scheduler=[dict(type='MultiStepLR', milestones=[100])]),
]  # fmt: skip

ROWS = [*MODELS, *FILES, *RUNS]
