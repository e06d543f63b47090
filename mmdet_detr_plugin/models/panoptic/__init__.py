"""DETR for panoptic and instance segmentation (paper, section 4.4; reference: models/segmentation.py)."""

from .detector import PanopticDETR
from .local_detector import PanopticLocalDETR
from .mask_head import BoxMaskHead, DETRMaskHead
from .panoptic_fpn import PanopticFPN
from .stuff_head import StuffHead

__all__ = ['BoxMaskHead', 'DETRMaskHead', 'PanopticDETR', 'PanopticFPN', 'PanopticLocalDETR', 'StuffHead']
