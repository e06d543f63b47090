"""What DETR needs of a backbone beyond mmdet's ResNet: torchvision's dilation, and ImageNet weights with a clear failure."""

from urllib.error import URLError

from mmdet.models.backbones import ResNet
from mmengine.model import PretrainedInit

from ..registry import MODELS, WEIGHT_INITIALIZERS


@MODELS.register_module()
class ResNetDC5(ResNet):
    """ResNet whose last stage keeps stride 16 and is dilated as torchvision does it ("DC5" in the paper, section 4).

    torchvision's ``replace_stride_with_dilation`` leaves the first block of the stage undilated; mmdet's ``dilations=(1, 1, 1, 2)``
    dilates all blocks. Official DC5 weights were trained with the former: under mmdet's they load cleanly and compute something else.

    Args:
        kwargs: mmdet's ``ResNet``; ``strides`` and ``dilations`` are set here.
    """

    def __init__(self, depth: int, **kwargs) -> None:
        super().__init__(depth, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), **kwargs)
        first_block = self.layer4[0]
        # 3x3 convolutions: conv2 of a bottleneck, conv1 (the one with the stage's stride) of a basic block.
        conv = first_block.conv2 if hasattr(first_block, 'conv3') else first_block.conv1
        conv.dilation, conv.padding = (1, 1), (1, 1)


@WEIGHT_INITIALIZERS.register_module()
class PretrainedBackbone(PretrainedInit):
    """Initialise a backbone from a classification checkpoint, by address or local file.

    A direct address is used instead of mmengine's ``torchvision://``, which needs torchvision to be installed.

    Raises:
        RuntimeError: when the file cannot be had, saying how to give a local one or to train from scratch.
    """

    def __call__(self, module) -> None:
        try:
            super().__call__(module)
        except (URLError, OSError) as error:
            raise RuntimeError(
                f'The pretrained backbone {self.checkpoint} could not be read ({error}). Either download that file on a machine that '
                'can, and pass it with\n    --cfg-options model.backbone.init_cfg.checkpoint=/path/to/file.pth\n'
                'or train from scratch, with normalisation that learns, with\n    --cfg-options model.backbone.init_cfg=None '
                'model.backbone.frozen_stages=-1 model.backbone.norm_cfg.requires_grad=True model.backbone.norm_eval=False\n'
                '(DETR from scratch needs far longer schedules; do the same for every model that you compare).'
            ) from error
