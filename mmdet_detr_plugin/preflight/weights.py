"""What a training starts from, and layers that would stay at random values."""

import os
from pathlib import Path
from urllib.parse import urlparse

from ..config_files import kind
from .config_facts import backbone_weights, dict_at, walk, whole
from .finding import ERROR, NOTE, WARNING, Finding

SCRATCH = 'frozen_stages=-1, norm_cfg=dict(type="BN", requires_grad=True), norm_eval=False, zero_init_residual=False, init_cfg=None'
FROM_SCRATCH = f'from scratch: {SCRATCH}; or give weights with init_cfg'
SMALL_BATCH = 4  # images in a batch, below which batch norm's statistics are poor


def check_start(cfg: dict) -> list[Finding]:
    """Pretrained or not, and whether the files are there."""
    findings = []
    sources = (('load_from', cfg.get('load_from')), ('the backbone', backbone_weights(cfg)))
    for what, source in sources:
        if source:
            findings += _source(what, str(source))
    if dict_at(cfg, 'model') and not any(source for _, source in sources):
        what = 'no pretrained weights: model.backbone.init_cfg has no checkpoint, load_from is not set, every layer starts at random'
        advice = 'right for a comparison from scratch, if all models do so; with little data start from ImageNet or COCO weights'
        findings.append(Finding('recipe', NOTE, what, advice))
    return findings


def _source(what: str, source: str) -> list[Finding]:
    """Local files must exist; addresses need a network, or an earlier download."""
    address = urlparse(source)
    if address.scheme in ('http', 'https'):
        from torch.hub import get_dir

        if (Path(get_dir()) / 'checkpoints' / os.path.basename(address.path)).is_file():
            return []
        advice = 'it must be reachable when training starts; else download it elsewhere and give the local file instead'
        return [Finding('recipe', NOTE, f'{what} starts from {source}, which is not downloaded yet', advice)]
    if address.scheme or Path(source).is_file():  # torchvision:// and others are mmengine's
        return []
    return [
        Finding('recipe', ERROR, f'{what} starts from {source}, which does not exist', f'correct the path (working directory {Path.cwd()})')
    ]


def check_frozen_layers(cfg: dict) -> list[Finding]:
    """Frozen layers or frozen batch norm without weights that make sense of them; defaults are mmdet's ``ResNet``'s."""
    backbone = dict_at(cfg, 'model', 'backbone')
    if backbone_weights(cfg) or cfg.get('load_from'):
        return []
    if 'ResNe' not in kind(backbone):  # other defaults, and norms of other kinds
        return _frozen_stages(whole(backbone, 'frozen_stages', -1))
    findings = []
    stages, zero_init = backbone.get('frozen_stages', -1), backbone.get('zero_init_residual', True)
    is_frozen_norm = not dict_at(backbone, 'norm_cfg').get('requires_grad', True)
    name = f'{kind(backbone)} (depth {backbone.get("depth")})'
    if is_frozen_norm and zero_init:
        what = f'batch norm of {name} is frozen without pretrained weights, its scales at 0 (zero_init_residual)'
        findings.append(Finding('recipe', ERROR, f'{what}: 0 gradients reach the residual branches', FROM_SCRATCH))
    elif is_frozen_norm:
        what = f'batch norm of {name} is frozen without pretrained weights (requires_grad False)'
        findings.append(Finding('recipe', WARNING, f'{what}: it normalises nothing, with means of 0 and variances of 1', FROM_SCRATCH))
    elif backbone.get('norm_eval', True) and _trains_batch_norm(backbone):
        what = f'norm_eval of {name} is True without pretrained weights: batch norm keeps means of 0 and variances of 1'
        findings.append(Finding('recipe', WARNING, what, FROM_SCRATCH))
    findings += _frozen_stages(stages)
    if zero_init and not is_frozen_norm:
        what = "zero_init_residual is True (mmdet's default) from scratch: the scales of 1 batch norm in each block start at 0"
        findings.append(Finding('recipe', NOTE, what, 'they open slowly: set zero_init_residual=False for short schedules'))
    return findings


def _frozen_stages(stages: int) -> list[Finding]:
    if stages < 0:
        return []
    what = f'frozen_stages is {stages} without pretrained weights: the first {stages + 1} stages (stem included) stay at random values'
    return [Finding('recipe', ERROR, what, FROM_SCRATCH)]


def check_batch_norm(cfg: dict) -> list[Finding]:
    """Trained batch norm with few images in a batch."""
    batch_size, model = whole(dict_at(cfg, 'train_dataloader'), 'batch_size', 1), dict_at(cfg, 'model')
    backbone, places = dict_at(model, 'backbone'), []
    if _trains_batch_norm(backbone) and not backbone.get('norm_eval', True):
        places.append('model.backbone')
    for path, node in walk({key: value for key, value in model.items() if key != 'backbone'}):
        if kind(node.get('norm_cfg')) == 'BN' and node['norm_cfg'].get('requires_grad', True):
            places.append(f'model.{path}')
    if not places or batch_size >= SMALL_BATCH:
        return []
    what = f'batch norm is trained on {batch_size} images at a time ({", ".join(places[:4])})'
    advice = f"its statistics are poor below {SMALL_BATCH}: use a larger batch, dict(type='GN', num_groups=32), or SyncBN on several GPUs"
    return [Finding('recipe', NOTE, what, advice)]


def _trains_batch_norm(backbone: dict) -> bool:
    norm = dict_at(backbone, 'norm_cfg')
    is_batch_norm = kind(norm) == 'BN' if norm else 'ResNe' in kind(backbone)  # mmdet's ResNet has it by default
    return is_batch_norm and norm.get('requires_grad', True)
