"""Every shipped config: builds twice, keeps its numbers, and trains one step at a small image size."""

import copy
import os
from urllib.error import URLError

import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import Registry

from mmdet_detr_plugin import registry
from mmdet_detr_plugin.models.dropout import Dropout

from ..builders import build, make_batch
from ..conftest import ROOT
from ..models.panoptic.builders import panoptic_batch

CONFIGS = sorted(path.relative_to(ROOT / 'configs') for path in (ROOT / 'configs').glob('*/*.py') if '_base_' not in path.parts)
FAMILIES = ('detr', 'detr-aided', 'local-detr')
PAIRS = [
    ('detr/detr_r50_8xb2-150e_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_8xb2-150e_coco.py'),
    ('detr/detr_r50_8xb2-1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_8xb2-1x_coco.py'),
    ('detr/detr_r18_8xb2-1x_coco.py', 'faster_rcnn/faster-rcnn_r18_fpn_8xb2-1x_coco.py'),
    ('panoptic_detr/panoptic-detr_r50_8xb2-1x_coco.py', 'panoptic_fpn/panoptic-fpn_r50_fpn_8xb2-1x_coco-panoptic.py'),
    (
        'shapes/panoptic-detr-aided_r18-half_1xb4-10e_shapes-panoptic.py',
        'shapes/panoptic-fpn_r18-half_fpn_1xb4-10e_shapes-panoptic.py',
    ),
    *(
        (f'{folder}/{name}_{depth}_8xb2-{schedule}_coco.py', f'faster_rcnn/faster-rcnn_{depth}_fpn_8xb2-{schedule}_coco.py')
        for folder, name in (('detr', 'detr-aided'), ('local_detr', 'local-detr'))
        for depth in ('r18', 'r50')
        for schedule in ('1x', '50e')
    ),
    *(
        (f'small/{name}_r18-half_1xb2-{epochs}e_coco320.py', f'small/faster-rcnn_r18-half_fpn_1xb2-{epochs}e_coco320.py')
        for name in FAMILIES
        for epochs in (12, 40)
    ),
    *((f'shapes/{name}_r18-half_1xb4-10e_shapes.py', 'shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py') for name in FAMILIES),
]


def load(name) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def plugin_types(node) -> set[str]:
    """All ``type`` values below a config node."""
    if isinstance(node, dict):
        return {value for key, value in node.items() if key == 'type'} | set().union(*map(plugin_types, node.values()), set())
    return set().union(*map(plugin_types, node), set()) if isinstance(node, (list, tuple)) else set()


def test_all_named_configs_are_there():
    named = {
        f'detr/detr_{name}_coco.py'
        for name in (
            'r50_8xb2-150e',
            'r50_8xb2-500e',
            'r18_8xb2-500e',
            'r101_8xb2-500e',
            'r50-dc5_8xb2-500e',
            'r101-dc5_8xb2-500e',
            'r50_8xb2-1x',
            'r18_8xb2-1x',
        )
    }
    named |= {
        f'faster_rcnn/faster-rcnn_{depth}_fpn_8xb2-{schedule}_coco.py' for depth in ('r18', 'r50', 'r101') for schedule in ('150e', '1x')
    }
    named |= {f'faster_rcnn/faster-rcnn-plus_{name}_8xb2-9x_coco.py' for name in ('r50_fpn', 'r101_fpn', 'r50-dc5', 'r101-dc5')}
    assert named <= {path.as_posix() for path in CONFIGS}


@pytest.mark.parametrize('name', CONFIGS, ids=str)
def test_config_builds_twice_unchanged_and_trains_one_step(name):
    cfg = load(name)
    cfg.model.backbone.init_cfg = None  # no download
    before = copy.deepcopy(cfg.model.to_dict())
    build(cfg.model)
    model = MODELS.build(cfg.model)
    if cfg.model.type.startswith('mmdet_detr_plugin.'):  # mmdet's FasterRCNN writes into its own
        assert cfg.model.to_dict() == before
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    tracked = {key: value.clone() for key, value in model.named_parameters() if value.requires_grad and 'backbone' not in key}
    losses = model.loss(**batch_for(model))
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total)
    optimizer.update_params(total)
    assert sum(not torch.equal(value, dict(model.named_parameters())[key]) for key, value in tracked.items()) > 0.9 * len(tracked)
    assert all(torch.isfinite(value).all() for value in model.parameters())


def batch_for(model) -> dict:
    """Two images, one of them without things."""
    shapes, counts = [(64, 96), (96, 80)], [3, 0]
    if hasattr(model, 'num_things_classes'):
        return panoptic_batch(shapes, counts, things=model.num_things_classes)
    return make_batch(shapes, counts, model.bbox_head.num_classes if hasattr(model, 'bbox_head') else model.roi_head.bbox_head.num_classes)


@pytest.mark.parametrize('names', PAIRS, ids=lambda names: names[0])
def test_both_models_of_a_comparison_share_data_and_schedule(names):
    ours, theirs = map(load, names)
    for key in (
        'train_pipeline',
        'test_pipeline',
        'train_dataloader',
        'val_dataloader',
        'test_dataloader',
        'val_evaluator',
        'test_evaluator',
        'train_cfg',
        'param_scheduler',
        'default_hooks',
        'custom_hooks',
        'randomness',
        'env_cfg',
    ):
        assert key == 'train_pipeline' or ours.get(key) is not None
        assert ours.get(key) == theirs.get(key), key
    for key in ('mean', 'std', 'bgr_to_rgb'):
        assert ours.model.data_preprocessor[key] == theirs.model.data_preprocessor[key], key


def test_rates_drop_as_in_the_paper_and_in_mmdet():
    for name, epochs, drops in (
        ('detr/detr_r50_8xb2-500e_coco.py', 500, [400]),
        ('detr/detr_r50_8xb2-150e_coco.py', 150, [100]),
        ('faster_rcnn/faster-rcnn_r50_fpn_8xb2-150e_coco.py', 150, [100]),
        ('detr/detr_r50_8xb2-1x_coco.py', 12, [8, 11]),
        ('faster_rcnn/faster-rcnn-plus_r50_fpn_8xb2-9x_coco.py', 109, [101, 106]),
    ):
        cfg = load(name)
        assert cfg.train_cfg.max_epochs == epochs
        assert cfg.param_scheduler[-1].milestones == drops and cfg.param_scheduler[-1].end == epochs


def test_metafile_names_configs_and_published_results():
    models = yaml.safe_load((ROOT / 'configs' / 'detr' / 'metafile.yml').read_text())['Models']
    published = {model['Name']: model['Results'][0]['Metrics']['box AP'] for model in models if 'Results' in model}
    assert published == {  # the official model zoo, and mmdet's
        'detr_r50_8xb2-500e_coco': 42.0,
        'detr_r50-dc5_8xb2-500e_coco': 43.3,
        'detr_r101_8xb2-500e_coco': 43.5,
        'detr_r101-dc5_8xb2-500e_coco': 44.9,
        'detr_r50_8xb2-150e_coco': 39.9,
    }
    for model in models:
        assert (ROOT / model['Config']).is_file() and model['Config'] == f'configs/detr/{model["Name"]}.py'
        assert model['Converted From']['Weights'].startswith('https://') and model['Converted From']['Weights'].endswith('.pth')


def test_metafile_of_panoptic_models_names_configs_and_published_results():
    models = yaml.safe_load((ROOT / 'configs' / 'panoptic_detr' / 'metafile.yml').read_text())['Models']
    published = {model['Name'].split('_')[1]: list(model['Results'][0]['Metrics'].values()) for model in models}
    assert published == {'r50': [43.4, 38.8, 31.1], 'r50-dc5': [44.6, 40.2, 31.9], 'r101': [45.1, 40.1, 33.0]}  # PQ, box AP, mask AP
    for model in models:
        assert (ROOT / model['Config']).is_file() and model['Config'] == f'configs/panoptic_detr/{model["Name"]}.py'
        assert model['Converted From']['Weights'].startswith('https://') and model['Converted From']['Weights'].endswith('.pth')


def test_paper_detr_has_the_papers_numbers():
    cfg = load('detr/detr_r50_8xb2-500e_coco.py')
    cfg.model.backbone.init_cfg = None
    model = build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {group['lr'] for group in optimizer.param_groups}
    assert (
        type(optimizer) is torch.optim.AdamW
        and rates == {1e-4, 1e-5}
        and {group['weight_decay'] for group in optimizer.param_groups} == {1e-4}
    )
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    dropouts = {module.p for module in model.neck.modules() if isinstance(module, Dropout)}
    assert dropouts == {0.1} and {layer.self_attn.dropout for layer in model.neck.encoder.layers} == {0.1}
    assert len(model.neck.encoder.layers) == len(model.neck.decoder.layers) == 6 and model.neck.num_queries == 100
    assert {(type(cost).__name__, cost.weight) for cost in model.bbox_head.assigner.match_costs} == {
        ('ClassificationCost', 1.0),
        ('BBoxL1Cost', 5.0),
        ('IoUCost', 2.0),
    }
    cfg.model.bbox_head.num_classes = 91  # as the official code counts classes; it prints this number of trained parameters
    model = build(cfg.model)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 41_302_368


@pytest.mark.parametrize('name', CONFIGS, ids=str)
def test_plugin_types_are_scoped_and_images_without_objects_kept(name):
    """An unscoped name would silently build mmdet's class. One test for both, as reading a config takes a third of a second."""
    registries = [each for each in vars(registry).values() if isinstance(each, Registry) and each.scope == registry.SCOPE]
    for each in registries:
        each.import_from_location()
    own = {name for each in registries for name in each.module_dict}
    assert {'DETRHead', 'HungarianAssigner', 'StrictCocoDataset', 'SafeCheckpointHook', 'PretrainedBackbone'} <= own
    cfg = load(name)
    assert not own & {kind for kind in plugin_types(cfg.to_dict()) if isinstance(kind, str)}
    assert cfg.train_dataloader.dataset.filter_cfg is None


@pytest.mark.parametrize('name', ['detr/detr_r18_8xb2-1x_coco.py', 'faster_rcnn/faster-rcnn_r18_fpn_8xb2-1x_coco.py'])
def test_unreachable_backbone_weights_say_what_to_do(name, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError('no route to host')

    monkeypatch.setattr('torch.hub.load_state_dict_from_url', offline)
    model = build(load(name).model)
    with pytest.raises(RuntimeError) as error:
        model.init_weights()
    for part in (
        'resnet18-f37072fd.pth could not be read',
        'no route to host',
        'backbone.init_cfg.checkpoint=',
        'backbone.norm_eval=False',
    ):
        assert part in str(error.value)


def test_local_backbone_weights_are_loaded(tmp_path):
    cfg = load('detr/detr_r18_8xb2-1x_coco.py').model
    source = build(cfg).backbone
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(source.state_dict(), tmp_path / 'resnet18.pth')
    cfg.backbone.init_cfg.checkpoint = str(tmp_path / 'resnet18.pth')
    model = build(cfg)
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name


@pytest.mark.parametrize(
    'change, error, message',
    [
        ('depth', ValueError, r'does not fit FoldedResNet: of its \d+ weights'),
        ('detector', ValueError, r"does not fit FoldedResNet: .* are missing .*set init_cfg.prefix='backbone.'"),
        ('truncated', RuntimeError, 'could not be read'),
        ('code', RuntimeError, 'could not be read'),
        ('missing', RuntimeError, 'could not be read'),
        ('scheme', RuntimeError, r"torchvision:// is known to mmengine alone. Expected .* model.backbone.init_cfg.type='Pretrained'"),
    ],
)
def test_backbone_file_that_does_not_fit_is_refused(tmp_path, change, error, message):
    path = tmp_path / 'weights.pth'
    weights = build(load('detr/detr_r18_8xb2-1x_coco.py').model).backbone.state_dict()
    if change == 'depth':
        weights = build(load('detr/detr_r50_8xb2-1x_coco.py').model).backbone.state_dict()
    elif change == 'detector':
        weights = {f'backbone.{name}': value for name, value in weights.items()}
    elif change == 'code':
        weights = dict(weights, attack=Attack(tmp_path / 'attacked'))
    if change == 'scheme':
        path = 'torchvision://resnet18'
    elif change != 'missing':
        torch.save(weights, path)
    if change == 'truncated':
        path.write_bytes(path.read_bytes()[:5000])
    cfg = load('detr/detr_r18_8xb2-1x_coco.py').model
    cfg.backbone.init_cfg.checkpoint = str(path)
    with pytest.raises(error, match=message):
        build(cfg).init_weights()
    assert not (tmp_path / 'attacked').exists()


class Attack:
    """A pickle that would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('name', CONFIGS)
def test_optimisers_are_not_fused(name):
    """torch's fused ones step wrongly on CPUs, without a word, where a gradient is laid out otherwise than its (channels-last) weight."""
    optimizer = Config.fromfile(ROOT / 'configs' / name).optim_wrapper.optimizer
    assert not optimizer.get('fused', False)
