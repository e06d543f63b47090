"""What DETR needs of a backbone beyond mmdet's ResNet: torchvision's dilation, and ImageNet weights that are read safely and checked."""

import pickle
import zipfile
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from mmengine.dist import barrier, get_rank
from mmengine.model import PretrainedInit, update_init_info
from torch import nn

from ..registry import MODELS, WEIGHT_INITIALIZERS
from .folded_resnet import FoldedResNet


@MODELS.register_module()
class ResNetDC5(FoldedResNet):
    """ResNet whose last stage keeps stride 16 and is dilated as torchvision does it ("DC5" in the paper, section 4).

    torchvision's ``replace_stride_with_dilation`` leaves the first block of the stage undilated; mmdet's ``dilations=(1, 1, 1, 2)``
    dilates all blocks. Official DC5 weights were trained with the former: under mmdet's they load cleanly and compute something else.

    Args:
        kwargs: ``FoldedResNet``'s, which are mmdet's; ``strides`` and ``dilations`` are set here.
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

    A direct address is used instead of mmengine's ``torchvision://``, which needs torchvision to be installed. Files are read with
    ``weights_only=True``, and every weight of the backbone must be in them: a random, frozen layer would never learn.

    Raises:
        RuntimeError: when the file cannot be had or read, or its scheme is mmengine's, saying how to give a local one or to train from
            scratch.
        ValueError: when it does not fit the backbone.
    """

    def __call__(self, module: nn.Module) -> None:
        scheme = urlsplit(self.checkpoint).scheme if '://' in self.checkpoint else 'file'
        if scheme not in ('file', 'http', 'https', 'ftp'):
            raise RuntimeError(
                f'The pretrained backbone {self.checkpoint} was not read: {scheme}:// is known to mmengine alone. Expected a file, or an '
                "address as in configs/detr/; or set model.backbone.init_cfg.type='Pretrained', which is mmengine's own loading"
            )
        try:
            content = self._read()
        except (URLError, OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise RuntimeError(
                f'The pretrained backbone {self.checkpoint} could not be read ({error}). Either download that file on a machine that '
                'can, and pass it with\n    --cfg-options model.backbone.init_cfg.checkpoint=/path/to/file.pth\n'
                'or train from scratch, with normalisation that learns, with\n    --cfg-options model.backbone.init_cfg=None '
                'model.backbone.frozen_stages=-1 model.backbone.norm_cfg.requires_grad=True model.backbone.norm_eval=False\n'
                '(DETR from scratch needs far longer schedules; do the same for every model that you compare).'
            ) from error
        weights = content.get('state_dict', content)
        if self.prefix:
            weights = {name.removeprefix(self.prefix): value for name, value in weights.items() if name.startswith(self.prefix)}
        self._check(module, weights)
        module.load_state_dict({name: value for name, value in weights.items() if not name.startswith('fc.')}, strict=False)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    def _read(self) -> dict:
        if '://' not in self.checkpoint:
            return torch.load(self.checkpoint, map_location='cpu', weights_only=True)
        if get_rank() > 0:  # the first process downloads, the others find the file
            barrier()
        try:
            return torch.hub.load_state_dict_from_url(self.checkpoint, map_location='cpu', check_hash=True, weights_only=True)
        finally:
            if get_rank() == 0:
                barrier()

    def _check(self, module: nn.Module, weights: dict) -> None:
        wanted = {name: value.shape for name, value in module.state_dict().items() if not name.endswith('num_batches_tracked')}
        missing = [name for name in wanted if name not in weights]
        other = [name for name, shape in wanted.items() if name in weights and weights[name].shape != shape]
        if missing or other:
            raise ValueError(
                f'{self.checkpoint} does not fit {type(module).__name__}: of its {len(wanted)} weights {len(missing)} are missing '
                f'({", ".join(missing[:3])} ...) and {len(other)} have another shape ({", ".join(other[:3])} ...). The file has '
                f'{len(weights)} entries such as {", ".join(list(weights)[:3])}. Expected the ImageNet weights of the same depth; for a '
                "detector's checkpoint set init_cfg.prefix='backbone.'."
            )
