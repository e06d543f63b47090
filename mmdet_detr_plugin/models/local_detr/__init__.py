"""A DETR for short schedules and small data: queries selected from a dense head, attention within boxes, refinement layer by layer."""

from .detector import LocalDETR
from .head import LocalDETRHead
from .pyramid_encoder import PyramidEncoder

__all__ = ['LocalDETR', 'LocalDETRHead', 'PyramidEncoder']
