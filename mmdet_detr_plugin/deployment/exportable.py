"""A detector as a function of tensors, for ``torch.export`` and ONNX."""

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..models.detector import DETR, SetDetector
from ..models.detr_head import DETRHead


class ExportableDetector(nn.Module):
    """Normalised images and their sizes in; boxes, scores and labels out, and masks where the detector has a mask head.

    Args:
        detector: the plugin's ``DETR`` or ``LocalDETR``, in evaluation mode. A copy is kept, without what exists in training only.
        half: weights and products of backbone, neck and the heads of masks and stuff in float16; inputs, outputs, positions and the box
            head stay float32, because boxes in half precision move in steps of several pixels.

    Raises:
        ValueError: for another detector or head, or in training mode.
    """

    def __init__(self, detector: nn.Module, half: bool = False) -> None:
        super().__init__()
        check_kind(detector)
        if detector.training:
            raise ValueError('the detector is in training mode; call detector.eval() first')
        detector = copy.deepcopy(detector)
        if isinstance(detector, DETR):
            detector.training_aids = nn.ModuleDict()
        self.detector, self.half_precision = detector.requires_grad_(False), half
        if half:
            detector.backbone.half()
            detector.neck.half()
            for part in ('mask_head', 'stuff_head'):
                if getattr(detector, part, None) is not None:
                    getattr(detector, part).half()
            detector.bbox_head.register_forward_pre_hook(_to_float32)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 and heights and widths (B, 2) int64 -> what the detector's ``detect`` returns."""
        return self.detector.detect(images.half() if self.half_precision else images, sizes)


def check_kind(detector: nn.Module) -> None:
    """Raise a ValueError for what is neither the plugin's ``DETR``, with its own head, nor ``LocalDETR``."""
    if not isinstance(detector, SetDetector) or (isinstance(detector, DETR) and not isinstance(detector.bbox_head, DETRHead)):
        head = getattr(detector, 'bbox_head', None)
        raise ValueError(
            f"only the plugin's DETR, with its own DETRHead, and LocalDETR can be exported, got {type(detector).__name__} with "
            f"{type(head).__module__}.{type(head).__name__}. mmdet models: tools/convert_checkpoint.py turns mmdet's DETR into the "
            "plugin's; others are exported by mmdeploy"
        )


def _to_float32(_: nn.Module, inputs: tuple) -> tuple:
    return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.dtype == torch.float16 else x, inputs)


def export_program(detector: nn.Module, half: bool = False) -> torch.export.ExportedProgram:
    """``torch.export`` of a detector, for any batch, height and width.

    Returns:
        A program whose ``module()`` takes images (B, 3, H, W) and sizes (B, 2), as ``ExportableDetector`` does.

    Raises:
        ValueError: see ``ExportableDetector``.
    """
    exportable = ExportableDetector(detector, half).eval()
    images, sizes = torch.zeros(2, 3, 160, 192), torch.tensor([[160, 192], [96, 128]])
    dynamic = torch.export.Dim.DYNAMIC
    shapes = dict(images={0: dynamic, 2: dynamic, 3: dynamic}, sizes={0: dynamic})
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of nn.Transformer, which the demo model has: one operation that ONNX lacks
    try:
        with torch.no_grad():
            return torch.export.export(exportable, (images, sizes), dynamic_shapes=shapes, strict=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
