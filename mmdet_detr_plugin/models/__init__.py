"""Models of the plugin; importing this package registers them."""

from ..checkpoints import mmengine_loading  # noqa: F401  files cannot run code
from .backbones import PretrainedBackbone, ResNetDC5
from .demo_neck import DemoNeck
from .detector import DETR
from .detr_head import DETRHead
from .folded_resnet import FoldedResNet
from .hungarian_assigner import HungarianAssigner
from .local_detr import LocalDETR, LocalDETRHead, PyramidEncoder
from .panoptic import BoxMaskHead, DETRMaskHead, PanopticDETR, PanopticFPN, PanopticLocalDETR, StuffHead
from .position_encoding import LearnedPositionEncoding, SinePositionEncoding
from .training_aids import DenoisingQueries, DenseHeads, JitteredBoxes, QueryGroups
from .transformer_neck import TransformerNeck

__all__ = [
    'DETR',
    'BoxMaskHead',
    'DETRHead',
    'DETRMaskHead',
    'DemoNeck',
    'DenoisingQueries',
    'DenseHeads',
    'FoldedResNet',
    'HungarianAssigner',
    'JitteredBoxes',
    'LearnedPositionEncoding',
    'LocalDETR',
    'LocalDETRHead',
    'PanopticDETR',
    'PanopticFPN',
    'PanopticLocalDETR',
    'PretrainedBackbone',
    'PyramidEncoder',
    'QueryGroups',
    'ResNetDC5',
    'SinePositionEncoding',
    'StuffHead',
    'TransformerNeck',
]
