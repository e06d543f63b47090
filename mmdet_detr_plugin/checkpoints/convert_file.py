"""Converting one checkpoint file; what ``tools/convert_checkpoint.py`` does."""

import io
import json
import math
import reprlib
from pathlib import Path

import torch
from mmengine.config import Config

from ..config_files import innermost_dataset, read_config
from ..datasets.records import read_text
from ..files import write_atomically, write_json
from . import conversion
from .architecture import describe, infer_model, model_shapes, shapes_of
from .class_rows import LAYOUTS, row_names
from .conversion import PluginWeights
from .formats import FORMATS, MASK_PREFIXES, Format
from .hf_files import classes_of, detr_config, preprocessor_config
from .mask_head import check_same_heads, fit_mask_head
from .reading import classes_in, read_checkpoint, weights_of

TARGETS = ('plugin', 'official', 'hf', 'mmdet', 'detrex')
SINE_DEFAULTS = dict(temperature=10000, normalize=True, scale=2 * math.pi)
MODELS = ('mmdet_detr_plugin.DETR', 'mmdet_detr_plugin.PanopticDETR')
FILE_SUFFIXES = ('.safetensors', '.bin', '.pth', '.pt')


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
        to: one of ``TARGETS``. ``hf`` writes a folder with configuration files unless ``target`` is named as a file.
        config: the plugin's config to fit; without it COCO's layouts become COCO's 80 or 133 classes, others stay as they are, and a mask
            head stays with its detector.
        classes_file: classes to fine-tune on; see ``read_classes``.
        num_queries: cut or extend the object queries.
        hf_backbone: ``native`` or ``timm``; default: as in the source, else ``native``.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when the source is no DETR, not whole, or does not fit; nothing is written then.
    """
    if source.is_dir():
        source = next((source / name for name in ('model.safetensors', 'pytorch_model.bin') if (source / name).is_file()), source)
    cfg = _detr_config(config) if config else None
    content = read_checkpoint(source)
    weights = conversion.load(weights_of(content, source), content.get('detr_source'))
    names = classes_in(content, source) or (classes_of(source.parent) if weights.found.name == 'hf' else None)
    if names and len(names) == weights.num_class_rows - 1:  # names of something else otherwise
        weights.classes = names
    lines = [f'{source}: {weights.found}, {describe(shapes_of(weights.state))}']
    if averaged := [name for name in content if 'ema' in str(name).lower().split('_') and name != 'ema_state_dict']:
        weights.notes.append(f'the file also holds {", ".join(map(str, averaged))}, which was not taken')

    target_format = _target_format(to, weights, hf_backbone, cfg is not None and _is_dc5(cfg))
    lines += fit_mask_head(weights, target_format, cfg, config)
    is_return = target_format == weights.source and to != 'plugin' and cfg is None and classes_file is None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # new rows are the same in every conversion
        if is_return:
            conversion.restore_classes(weights)
        else:
            lines.append(_select_classes(weights, cfg, config, classes_file))
        if num_queries is not None:
            conversion.resize_queries(weights, num_queries)
    _check(weights, cfg, config)
    if cfg is not None:
        _check_expressible(cfg, target_format)
    if not is_return:
        if to == 'official':
            conversion.number_as_coco(weights)
        left = 'kept aside' if to == 'plugin' else 'left out'
        rows = 0 if weights.dropped is None else len(weights.dropped['dropped'])
        others = sum(not name.startswith(MASK_PREFIXES) for name in weights.aside)
        counts = ((others, 'tensors beside the detector'), (rows, 'class rows'))
        lines += [f'{count} {what} are {left}' for count, what in counts if count]
    written = _write(weights, target, target_format, cfg, is_return)
    return [*lines, *(f'note: {note}' for note in weights.notes), f'wrote {written} ({target_format})']


def _detr_config(path: Path) -> Config:
    cfg = read_config(path)
    if not str(cfg.get('model', {}).get('type')).endswith(MODELS):
        raise ValueError(f'{path} is a config of {cfg.get("model", {}).get("type")}; --config must be one of {" or ".join(MODELS)}')
    return cfg


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a COCO JSON (its categories, in the file's order) or from a text file with one name in a line.

    Raises:
        FileNotFoundError, ValueError: when there are none, or one twice.
    """
    text = read_text(path)
    if path.suffix == '.json':
        try:
            names = [category['name'] for category in json.loads(text)['categories']]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f'{path} is no COCO JSON with categories ({type(error).__name__}: {error})') from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f'{path} must hold one or more different class names, got {reprlib.repr(names)}')
    return tuple(names)


def _select_classes(weights: PluginWeights, cfg: Config | None, config: Path | None, classes_file: Path | None) -> str:
    """Bring the class rows into the wanted order; what was done, for people."""
    wanted, count = (None, None) if cfg is None else (_classes_of_config(cfg), cfg.model.bbox_head.num_classes)
    if classes_file:
        classes = read_classes(classes_file)
        if cfg is not None and (count != len(classes) or (wanted and wanted != classes)):
            raise ValueError(
                f'{classes_file} has {len(classes)} classes ({", ".join(classes[:5])} ...), {config} has {count} '
                f'({", ".join((wanted or ())[:5])} ...); they must be the same, in the same order (tools/make_config.py does it)'
            )
        plan = conversion.select_classes(weights, classes, len(classes), fine_tune=True)
    else:
        plan = conversion.select_classes(weights, wanted, count)
    return (
        f'classes: {len(plan.rows) - len(plan.new)} of {plan.source_rows - 1} rows taken ({plan.reason}), {len(plan.new)} new, '
        'no-object taken'
    )


def _check(weights: PluginWeights, cfg: Config | None, config: Path | None) -> None:
    """Against the config, or without one against the architecture that the weights show."""
    expected = model_shapes(infer_model(shapes_of(weights.state)) if cfg is None else cfg.model.to_dict())
    what = f'{config}: {describe(expected)}' if cfg is not None else 'the architecture that they show'
    if expected[conversion.QUERIES][0] != len(weights.state[conversion.QUERIES]):
        what += ' (--num-queries changes the queries)'
    conversion.check_against(weights, expected, what)


def _classes_of_config(cfg: Config) -> tuple[str, ...] | None:
    dataset = innermost_dataset(cfg.get('train_dataloader', {}))
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None and 'Coco' in dataset.get('type', ''):  # whose classes are those of CocoDataset or CocoPanopticDataset
        classes = next((layout for layout in LAYOUTS.values() if len(layout) == cfg.model.bbox_head.num_classes), None)
    return tuple(classes) if classes else None


def _target_format(to: str, weights: PluginWeights, hf_backbone: str | None, is_dc5: bool) -> Format:
    if to == weights.source.name and hf_backbone is None and to != 'plugin':
        return weights.source
    if to != 'hf':
        is_demo = to == 'official' and any(name.startswith('neck.transformer.') for name in weights.state)
        return FORMATS[to, 'demo' if is_demo else 'torchvision ResNet' if to == 'detrex' and is_dc5 else '']
    return FORMATS['hf', f'{hf_backbone or "native"} ResNet, file names']


def _write(weights: PluginWeights, target: Path, target_format: Format, cfg: Config | None, is_return: bool) -> Path:
    if target_format.name == 'plugin':
        return _save(conversion.plugin_checkpoint(weights), target)
    tensors = conversion.other_weights(weights, target_format, is_return)
    if target_format.name != 'hf':
        entry = 'state_dict' if target_format.name == 'mmdet' else 'model'
        has_meta = weights.classes and target_format.name == 'mmdet'
        return _save({**(dict(meta=dict(dataset_meta=dict(classes=weights.classes))) if has_meta else {}), entry: tensors}, target)
    is_native = target_format.variant.startswith('native')
    if target.suffix in FILE_SUFFIXES:
        return _save(tensors, target)
    model = infer_model(shapes_of(weights.state))
    num_heads = model['neck']['num_heads'] if cfg is None else cfg.model.neck.get('num_heads', 8)
    if cfg is None:
        weights.notes.append(f'{num_heads} attention heads, stride 32 and images of 800 to 1333 are assumed; --config says them')
    classes = weights.classes or row_names(weights.num_class_rows)
    configuration = detr_config(weights.state, classes, num_heads, is_native)
    if cfg is not None and _is_dc5(cfg):
        configuration['dilation'] = True
    processing = preprocessor_config(cfg, is_panoptic='mask_head' in model)
    _save(tensors, target / 'model.safetensors')
    write_json(target / 'config.json', configuration)
    write_json(target / 'preprocessor_config.json', processing)
    return target


def _check_expressible(cfg: Config, target_format: Format) -> None:
    """Refuse what leaves no trace in the weights, and what the target would therefore compute otherwise.

    Raises:
        ValueError: for strides, dilation, attention heads or a position encoding that the target does not have.
    """
    name, backbone = target_format.name, cfg.model.backbone
    if name == 'plugin':
        return
    check_same_heads(cfg.model, target_format)
    is_dc5 = _is_dc5(cfg)
    strides, dilations = tuple(backbone.get('strides', (1, 2, 2, 2))), tuple(backbone.get('dilations', (1, 1, 1, 1)))
    if not is_dc5 and (strides, dilations) != ((1, 2, 2, 2), (1, 1, 1, 1)):
        raise ValueError(
            f'{name} has no ResNet with strides {strides} and dilations {dilations}; only standard ones and DC5 can be written'
        )
    if is_dc5 and target_format.variant.startswith('native'):
        raise ValueError("HF's own ResNet has no dilation; write DC5 weights with --hf-backbone timm")
    if is_dc5 and name == 'mmdet':
        raise ValueError('DC5 weights cannot be written for mmdet, which dilates other blocks')
    if is_dc5 and target_format == FORMATS['detrex', '']:
        raise ValueError("detectron2's ResNet dilates other blocks than DC5; detrex's DC5 models have torchvision's")
    position = dict(cfg.model.neck.get('position_encoding') or {})
    changed = {key: position[key] for key, usual in SINE_DEFAULTS.items() if not math.isclose(position.get(key, usual), usual)}
    if changed:
        raise ValueError(f'{name} has no position encoding with {changed}; only the usual {SINE_DEFAULTS} can be written')


def _is_dc5(cfg: Config) -> bool:
    return cfg.model.backbone.type.endswith('ResNetDC5')


def _save(content: dict, target: Path) -> Path:
    if target.suffix == '.safetensors':
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise ValueError(f"{target}: .safetensors holds tensors only, which is HF's layout; write this one to a .pth file")
        try:
            from safetensors.torch import save
        except ImportError as error:
            raise ValueError(f'{target} needs the package safetensors: pip install safetensors') from error
        write_atomically(save({name: value.contiguous() for name, value in content.items()}, metadata=dict(format='pt')), target)
        return target
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(buffer.getvalue(), target)
    return target
