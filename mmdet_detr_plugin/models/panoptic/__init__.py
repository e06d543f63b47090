"""DETR for panoptic and instance segmentation (paper, section 4.4; reference: models/segmentation.py)."""

from .detector import PanopticDETR
from .mask_head import DETRMaskHead
from .panoptic_fpn import PanopticFPN

__all__ = ['DETRMaskHead', 'PanopticDETR', 'PanopticFPN']
