"""mmdet's ResNet with frozen batch norm folded into the convolutions before it: the same weights, outputs and gradients, in less time and
memory.

A batch norm that uses its stored statistics is an affine map of each channel, so that ``norm(conv(x))`` is one convolution with scaled
weights and a bias. It then makes no pass over the activations, and keeps no copy of them for the backward pass.
"""

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..registry import MODELS
from . import onednn
from .fused_conv import scaled_conv

GLOBAL_HOOKS = (module_hooks._global_forward_hooks, module_hooks._global_forward_pre_hooks)


def conv_norm(
    x: Tensor, conv: nn.Module, norm: nn.Module, residual: Tensor | None = None, relu: bool = True, reuse: bool = False
) -> Tensor:
    """``relu(norm(conv(x)) + residual)``, with the norm folded into the convolution where it is a constant affine map.

    That is the case for a batch norm in eval mode, unless its own weights need gradients now, or somebody has hooked into one of both.
    With ``reuse`` the residual's memory may become the result's.
    """
    if _is_plain_conv(conv) and _is_constant(norm):
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        return scaled_conv(x, conv, scale, bias, residual, relu, reuse)
    x = norm(conv(x))
    if residual is not None:
        x += residual
    return F.relu(x, inplace=True) if relu else x


def _is_plain_conv(conv: nn.Module) -> bool:
    is_plain = type(conv) is nn.Conv2d and conv.padding_mode == 'zeros' and onednn.is_plain(conv)
    return is_plain and (conv.bias is None or not (torch.is_grad_enabled() and conv.bias.requires_grad))


def _is_constant(norm: nn.Module) -> bool:
    if not isinstance(norm, _BatchNorm) or norm.training or not norm.affine or norm.running_var is None or not onednn.is_plain(norm):
        return False
    return not (torch.is_grad_enabled() and (norm.weight.requires_grad or norm.bias.requires_grad))


class _FoldedBlock:
    """What both kinds of residual block share: ``conv1``, ``conv2`` ... and ``norm1``, ``norm2`` ...

    Attributes:
        num_convs: how many.
        owns_input: nobody else looks at the input any more, so that its memory may be used again.
    """

    num_convs: int
    owns_input = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        if getattr(self, 'with_plugins', False):
            return super().forward(x)
        if self.with_cp and x.requires_grad:
            return checkpoint(self._folded_forward, x, use_reentrant=False)
        return self._folded_forward(x)

    def _folded_forward(self, x: Tensor) -> Tensor:
        identity, reuse = x, self.owns_input
        if self.downsample is not None:
            reuse = True
            *pool, conv, norm = self.downsample
            for layer in pool:
                identity = layer(identity)
            identity = conv_norm(identity, conv, norm, relu=False)
        for number in range(1, self.num_convs):
            x = conv_norm(x, getattr(self, f'conv{number}'), getattr(self, f'norm{number}'))
        return conv_norm(x, getattr(self, f'conv{self.num_convs}'), getattr(self, f'norm{self.num_convs}'), identity, reuse=reuse)


class FoldedBasicBlock(_FoldedBlock, BasicBlock):
    num_convs = 2


class FoldedBottleneck(_FoldedBlock, Bottleneck):
    num_convs = 3


@MODELS.register_module()
class FoldedResNet(ResNet):
    """Takes the place of mmdet's ``ResNet``, with its arguments and parameter names, in every detector.

    Where batch norm is not frozen it computes as mmdet's does. Images, features and weights are laid out channels last, with which
    convolutions are faster on CPUs and on tensor cores.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for module in self.modules():  # afterwards, because mmdet initialises blocks by their exact class
            module.__class__ = {BasicBlock: FoldedBasicBlock, Bottleneck: FoldedBottleneck}.get(type(module), type(module))
        self.to(memory_format=torch.channels_last)

    def init_weights(self) -> None:
        """As mmdet's, number by number."""
        self.to(memory_format=torch.contiguous_format)
        super().init_weights()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> the feature maps of ``out_indices``."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x) if self.deep_stem else conv_norm(x, self.conv1, self.norm1)
        x = self.maxpool(x)
        outs = []
        for index, name in enumerate(self.res_layers):
            x = self._run_stage(getattr(self, name), x)
            if index in self.out_indices:
                outs.append(x.contiguous())  # mmcv's RoI align reads other layouts wrongly, without a word
        return tuple(outs)

    def _run_stage(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        # unless somebody looks at what lies between
        if not any(map(len, GLOBAL_HOOKS)) and all(map(onednn.is_plain, (blocks, *blocks))):
            inner = [block for block in list(blocks)[1:] if isinstance(block, _FoldedBlock)]
        else:
            inner = []
        try:
            for block in inner:
                block.owns_input = True
            return blocks(x)
        finally:
            for block in inner:
                block.owns_input = False
