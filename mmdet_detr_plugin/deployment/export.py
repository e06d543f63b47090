"""Writing a trained detector as an ONNX file that knows its own pre-processing and classes."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from .. import __version__
from ..config_files import kind
from ..files import write_atomically
from ..prediction.pipeline import inference_steps
from .description import DETECTIONS, OF_MASKS, Description
from .exportable import check_kind, export_program

OPSET = 20
CAN_EXPORT = hasattr(torch.compiler, 'is_exporting')  # torch 2.7 and later
SHAPES = dict(
    images=('batch', 3, 'height', 'width'),
    sizes=('batch', 2),
    boxes=('batch', 'detections', 4),
    scores=('batch', 'detections'),
    labels=('batch', 'detections'),
    no_object=('batch', 'detections'),
    masks=('batch', 'detections', 'mask_height', 'mask_width'),
)
MEANINGS = dict(
    images='float32, prepared as the metadata "preprocess" says, padded at the bottom and right to one size',
    sizes='int64, height and width of each image without padding',
    boxes='float32, x0 y0 x1 y1 as fractions of the sides of the image without padding',
    scores='float32, in [0, 1]',
    labels='int64, index into the metadata "classes"',
    no_object="float32, in [0, 1], what a score must exceed to make a segment, beside the metadata's score_thr",
    masks='float32 logits, of the padded batch at a fourth of its size; mmdet_detr_plugin/deployment/segments.py makes segments of them',
)
PANOPTIC = ('num_things_classes', 'score_thr', 'panoptic_on', 'instance_on')


def export_onnx(cfg: Config, detector: nn.Module, out: Path, half: bool = False, simplify: bool = False) -> Description:
    """Write ``out``, whole or not at all.

    Args:
        cfg: the detector's config, for its test pipeline and pre-processor.
        detector: in evaluation mode, with ``dataset_meta`` holding ``classes``.
        half: float16 weights and products; see ``ExportableDetector``.
        simplify: compute all that does not depend on the inputs now; runtimes do the same when they load the file.

    Raises:
        ImportError: without onnx and onnxscript, or with torch 2.6, whose exporter fails on networks for images of any size.
        ValueError: for a detector or pre-processing that cannot be exported.
    """
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'mmdet_detr_plugin[onnx]'") from error
    if not CAN_EXPORT:
        raise ImportError(f'ONNX export needs torch 2.7 or later, this is {torch.__version__}; export on another installation')
    description = describe(cfg, detector, half)
    outputs = DETECTIONS if getattr(detector, 'mask_head', None) is None else (*DETECTIONS, *OF_MASKS)
    program = _to_onnx(export_program(detector, half), outputs)
    if simplify:
        import onnxscript.optimizer

        onnxscript.optimizer.optimize_ir(program.model, input_size_limit=2**40, output_size_limit=2**40)
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = MEANINGS[value.name]
        for dim, name in zip(value.type.tensor_type.shape.dim, SHAPES[value.name], strict=True):
            if isinstance(name, str):
                dim.dim_param = name  # the exporter names them by its own formulas
    del model.graph.value_info[:]  # shapes in between, in those formulas
    for key, value in description.as_metadata().items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    write_atomically(model.SerializeToString(), out)
    return description


def _to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> 'torch.onnx.ONNXProgram':
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of torchvision's absence
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=['images', 'sizes'],
                output_names=list(outputs),
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def describe(cfg: Config, detector: nn.Module, half: bool = False) -> Description:
    """What the file will say about itself.

    Raises:
        ValueError: for a detector that cannot be exported, or when the config has no one test pipeline that starts with loading an image,
            or this or the pre-processor does more than loading, resizing, normalising and padding.
    """
    check_kind(detector)
    resize = _resize(inference_steps(cfg))
    classes = list(detector.dataset_meta.get('classes') or ())
    num_classes = detector.bbox_head.num_classes
    if len(classes) != num_classes:
        raise ValueError(
            f'the model has {num_classes} classes, but {len(classes)} names are known ({", ".join(classes[:5])} ...); the checkpoint or '
            'test_dataloader.dataset.metainfo must name them'
        )
    most = getattr(detector, 'max_per_img', None) or detector.bbox_head.max_per_img or detector.neck.query_embed.num_embeddings
    return Description(
        classes=classes,
        preprocess=dict(resize=resize, **_normalisation(detector.data_preprocessor)),
        max_per_img=most,
        precision='fp16' if half else 'fp32',
        origin=dict(model=type(detector).__name__, config=Path(cfg.filename or '').name, plugin_version=__version__),
        panoptic={key: getattr(detector, key) for key in PANOPTIC} if hasattr(detector, 'num_things_classes') else None,
    )


def _resize(steps: Sequence[dict]) -> dict | None:
    loading, *others = steps
    resize = None
    for step in others:
        name = kind(step)
        settings = {key: value for key, value in step.items() if key != 'type'}
        if name == 'Resize' and _keeps_size(settings):
            continue
        if name == 'Resize' and resize is None and set(settings) <= {'scale', 'keep_ratio'} and 'scale' in settings:
            scale = settings['scale']
            scale = [scale, scale] if isinstance(scale, int) else list(scale)
            resize = dict(scale=scale, keep_ratio=bool(settings.get('keep_ratio', False)))
        elif name != 'PackDetInputs':
            raise ValueError(
                f'the test pipeline has the step {step}; an exported file knows LoadImageFromFile, one Resize with scale and keep_ratio, '
                'and PackDetInputs. Move it out of the pipeline, or do it before and after the exported detector'
            )
    if resize is not None and loading.get('to_float32'):
        raise ValueError(
            f'the test pipeline has the step {loading}, and would resize in float32; an exported file resizes whole numbers, as '
            'LoadImageFromFile gives them by default. Leave to_float32 out, and evaluate whether the model is as good'
        )
    return resize


def _keeps_size(settings: dict) -> bool:
    """Whether a Resize is there only to state the scale, 1, that predictions are divided by; mmcv ignores the factor beside a scale."""
    factor = settings.get('scale_factor')
    factors = factor if isinstance(factor, Sequence) else [factor]
    return settings.get('scale') is None and all(value == 1 for value in factors)


def _normalisation(preprocessor: nn.Module) -> dict:
    kind = type(preprocessor).__name__
    if kind != 'DetDataPreprocessor':
        raise ValueError(f'an exported file knows DetDataPreprocessor alone, got {kind}')
    bgr_to_rgb = preprocessor._channel_conversion
    is_on = preprocessor._enable_normalize
    mean, std = ([float(x) for x in getattr(preprocessor, name).flatten()] for name in ('mean', 'std')) if is_on else ([0.0] * 3, [1.0] * 3)
    return dict(
        mean=mean,
        std=std,
        channels='RGB' if bgr_to_rgb else 'BGR',
        pad_value=float(preprocessor.pad_value),
        pad_size_divisor=preprocessor.pad_size_divisor,
    )
