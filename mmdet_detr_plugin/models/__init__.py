"""Models of the plugin; importing this package registers them."""

from .backbones import PretrainedBackbone, ResNetDC5
from .demo_neck import DemoNeck
from .detector import DETR
from .detr_head import DETRHead
from .folded_resnet import FoldedResNet
from .hungarian_assigner import HungarianAssigner
from .position_encoding import LearnedPositionEncoding, SinePositionEncoding
from .transformer_neck import TransformerNeck

__all__ = [
    'DETR',
    'DETRHead',
    'DemoNeck',
    'FoldedResNet',
    'HungarianAssigner',
    'LearnedPositionEncoding',
    'PretrainedBackbone',
    'ResNetDC5',
    'SinePositionEncoding',
    'TransformerNeck',
]
