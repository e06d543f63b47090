"""Converting one checkpoint file; what ``tools/convert_checkpoint.py`` does."""

import io
import json
from pathlib import Path

import torch
from mmengine.config import Config

from ..files import write_atomically, write_json
from . import conversion
from .architecture import describe, infer_model, model_shapes, shapes_of
from .class_rows import COCO_CLASSES
from .conversion import PluginWeights
from .formats import FORMATS, Format
from .hf_files import PREPROCESSOR, classes_of, detr_config
from .reading import read_checkpoint, weights_of

TARGETS = ('plugin', 'official', 'hf', 'mmdet', 'detrex')


def convert_file(
    source: Path,
    target: Path,
    to: str = 'plugin',
    config: Path | None = None,
    classes_file: Path | None = None,
    num_queries: int | None = None,
    hf_backbone: str | None = None,
) -> list[str]:
    """Convert ``source`` and write ``target``; returns a summary for people.

    Args:
        to: one of ``TARGETS``. ``hf`` writes a folder with configuration files when ``target`` has no suffix.
        config: the plugin's config to fit; without it COCO's layouts become COCO's 80 classes, others stay as they are.
        classes_file: classes to fine-tune on; see ``read_classes``.
        num_queries: cut or extend the object queries.
        hf_backbone: ``native`` or ``timm``; default: as in the source, else ``native``.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when the source is no DETR, not whole, or does not fit; nothing is written then.
    """
    content = read_checkpoint(source)
    weights = conversion.load(weights_of(content, source), _classes_in(content, source), content.get('detr_source'))
    came_as = weights.source
    lines = [f'{source}: {weights.found}, {describe(shapes_of(weights.state))}']
    cfg = Config.fromfile(config) if config else None
    is_return = to == came_as.name != 'plugin' and cfg is None and classes_file is None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # new rows are the same in every conversion
        if not is_return:
            lines.append(_fit(weights, cfg, config, classes_file, num_queries))
        elif num_queries:
            conversion.resize_queries(weights, num_queries)
    if weights.aside:
        lines.append(f'{len(weights.aside)} tensors of a mask head are kept aside')
    target_format = _target_format(to, weights, hf_backbone)
    written = _write(weights, target, target_format, cfg)
    return [*lines, *(f'note: {note}' for note in weights.notes), f'wrote {written} ({target_format})']


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a COCO JSON (its categories, in the file's order) or from a text file with one name in a line.

    Raises:
        FileNotFoundError, ValueError: when there are none, or one twice.
    """
    text = path.read_text()
    if path.suffix == '.json':
        try:
            names = [category['name'] for category in json.loads(text)['categories']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path} is no COCO JSON with categories ({type(error).__name__}: {error})') from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f'{path} must hold one or more different class names, got {names[:20]}')
    return tuple(names)


def _classes_in(content: dict, source: Path) -> tuple[str, ...] | None:
    meta = content.get('meta') if isinstance(content.get('meta'), dict) else {}
    dataset_meta = meta.get('dataset_meta') or {}
    return dataset_meta.get('classes') or dataset_meta.get('CLASSES') or meta.get('CLASSES') or classes_of(source.parent)


def _fit(weights: PluginWeights, cfg: Config | None, config: Path | None, classes_file: Path | None, num_queries: int | None) -> str:
    """Select class rows and queries, and check every tensor; what was done with the classes."""
    rows = weights.num_class_rows
    if classes_file:
        classes = read_classes(classes_file)
        plan = conversion.select_classes(weights, classes, len(classes), fine_tune=True)
    elif cfg is not None:
        plan = conversion.select_classes(weights, _classes_of_config(cfg), cfg.model.bbox_head.num_classes)
    else:
        plan = conversion.select_classes(weights, None, None)
    if num_queries:
        conversion.resize_queries(weights, num_queries)
    model = cfg.model.to_dict() if cfg is not None else infer_model(shapes_of(weights.state))
    expected = model_shapes(model, len(plan.rows), num_queries)
    what = f'{config}: {describe(expected)}' if cfg is not None else 'the architecture that they show'
    conversion.check_against(weights, expected, what)
    kept = len(plan.rows) - len(plan.new)
    text = f'classes: {kept} of {rows - 1} rows kept ({plan.reason}), {len(plan.new)} new, no-object kept'
    return text + (f'; {len(plan.dropped)} rows are kept aside' if plan.dropped else '')


def _classes_of_config(cfg: Config) -> tuple[str, ...] | None:
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    while isinstance(dataset.get('dataset'), dict):  # wrappers
        dataset = dataset['dataset']
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None and 'Coco' in dataset.get('type', '') and cfg.model.bbox_head.num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    return tuple(classes) if classes else None


def _target_format(to: str, weights: PluginWeights, hf_backbone: str | None) -> Format:
    if to == weights.source.name and hf_backbone is None:
        return weights.source
    if to != 'hf':
        is_demo = to == 'official' and any(name.startswith('neck.transformer.') for name in weights.state)
        return FORMATS[to, 'demo' if is_demo else '']
    return FORMATS['hf', f'{hf_backbone or "native"} ResNet, file names']


def _write(weights: PluginWeights, target: Path, target_format: Format, cfg: Config | None) -> Path:
    if target_format.name == 'plugin':
        return _save_torch(conversion.plugin_checkpoint(weights), target)
    state, classes = weights.state, weights.classes
    tensors = conversion.other_weights(weights, target_format)
    if target_format.name != 'hf':
        entry = 'state_dict' if target_format.name == 'mmdet' else 'model'
        meta = dict(meta=dict(dataset_meta=dict(classes=classes))) if classes and target_format.name == 'mmdet' else {}
        return _save_torch({**meta, entry: tensors}, target)
    if target.suffix:
        return _save_safetensors(tensors, target) if target.suffix == '.safetensors' else _save_torch(tensors, target)
    is_native = target_format.variant.startswith('native')
    if cfg is None:
        weights.notes.append(
            '8 attention heads, stride 32 and no dilation are assumed, which the weights do not tell; --config checks them'
        )
    is_dc5 = cfg is not None and _is_dilated(cfg, is_native)
    configuration = detr_config(state, classes, 8 if cfg is None else cfg.model.neck.get('num_heads', 8), is_native)
    if is_dc5:
        configuration['dilation'] = True
    _save_safetensors(tensors, target / 'model.safetensors')
    write_json(target / 'config.json', configuration)
    write_json(target / 'preprocessor_config.json', PREPROCESSOR)
    return target


def _is_dilated(cfg: Config, is_native: bool) -> bool:
    """Whether the config's backbone is DC5.

    Raises:
        ValueError: when HF has no backbone that computes the same.
    """
    backbone = cfg.model.backbone
    is_dc5 = backbone.type.endswith('ResNetDC5')
    strides, dilations = tuple(backbone.get('strides', (1, 2, 2, 2))), tuple(backbone.get('dilations', (1, 1, 1, 1)))
    if not is_dc5 and (strides, dilations) != ((1, 2, 2, 2), (1, 1, 1, 1)):
        raise ValueError(
            f"HF's ResNets have no strides {strides} with dilations {dilations}; only the standard ones and DC5 can be written"
        )
    if is_dc5 and is_native:
        raise ValueError("HF's own ResNet has no dilation; write DC5 weights with --hf-backbone timm")
    return is_dc5


def _save_torch(content: dict, target: Path) -> Path:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(buffer.getvalue(), target)
    return target


def _save_safetensors(tensors: dict, target: Path) -> Path:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ValueError(f'{target} needs the package safetensors: pip install safetensors') from error
    write_atomically(save({name: value.contiguous() for name, value in tensors.items()}, metadata=dict(format='pt')), target)
    return target
