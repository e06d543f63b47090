"""What a model's mask head makes masks from, kept by hooks: masks of the few queries that are shown are made afterwards.

Letters: B images, Q queries, D channels, C channels of a feature map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.local_detr.outputs import View
from ..models.panoptic import PanopticDETR, PanopticLocalDETR
from ..models.transformer_neck import Encoded


@dataclass
class DETRMaskSources:
    """Of a ``PanopticDETR``.

    Attributes:
        hidden_states: (B, Q, D) of the last decoder layer.
        projected_map: (B, D, h, w), what enters the encoder.
        encoded: the encoder's output.
        feats: (B, C, h, w) at strides 4, 8 and 16.
    """

    hidden_states: Tensor | None = None
    projected_map: Tensor | None = None
    encoded: Encoded | None = None
    feats: Sequence[Tensor] = ()

    def hooks(self, model: PanopticDETR) -> Iterator:
        """Handles of hooks."""
        yield model.backbone.register_forward_hook(self._keep_feats)
        yield model.neck.input_proj.register_forward_hook(self._keep_projected_map)
        yield model.neck.encoder.register_forward_hook(self._keep_encoded)
        yield model.neck.decoder.register_forward_hook(self._keep_hidden_states)

    def masks(self, model: PanopticDETR, image: int, queries: Sequence[int]) -> Tensor:
        """Mask logits (queries, H/4, W/4) of one image."""
        encoded = self.encoded
        of_image = Encoded(
            encoded.memory[image, None],
            encoded.pos,
            None if encoded.attend_mask is None else encoded.attend_mask[image, None],
            encoded.map_size,
            encoded.projected_map[image, None],
        )
        with torch.no_grad():
            return model.mask_head(self.hidden_states[image, None, list(queries)], of_image, [feat[image, None] for feat in self.feats])

    def _keep_feats(self, module: nn.Module, args: tuple, output: tuple[Tensor, ...]) -> None:
        self.feats = [feat.detach() for feat in output[:-1]]

    def _keep_projected_map(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.projected_map = output.detach()

    def _keep_encoded(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        _, pos, attend_mask = args
        self.encoded = Encoded(output.detach(), pos, attend_mask, tuple(self.projected_map.shape[-2:]), self.projected_map)

    def _keep_hidden_states(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.hidden_states = output[-1].detach()


@dataclass
class LocalMaskSources:
    """Of a ``PanopticLocalDETR``.

    Attributes:
        hidden_states: (B, Q, D) of the last decoder layer.
        boxes_cxcywh_norm: (B, Q, 4).
        memory: (B, D, h, w) of each level.
        view: where the images lie in the batch.
    """

    hidden_states: Tensor | None = None
    boxes_cxcywh_norm: Tensor | None = None
    memory: Sequence[Tensor] = ()
    view: View | None = None

    def hooks(self, model: PanopticLocalDETR) -> Iterator:
        """Handles of hooks."""
        yield model.bbox_head.register_forward_hook(self._keep)

    def masks(self, model: PanopticLocalDETR, image: int, queries: Sequence[int]) -> Tensor:
        """Mask logits (queries, H/4, W/4) of one image."""
        hidden_states, boxes = (x[image, None, list(queries)] for x in (self.hidden_states, self.boxes_cxcywh_norm))
        view = View(self.view.scale[image, None], [])  # padding does not enter
        with torch.no_grad():
            return model.masks(hidden_states, boxes, [level[image, None] for level in self.memory], view)

    def _keep(self, module: nn.Module, args: tuple, output) -> None:
        memory, self.view = args[:2]
        self.memory = [level.detach() for level in memory]
        self.hidden_states, self.boxes_cxcywh_norm = output.hidden_states.detach(), output.boxes[-1].detach()


def mask_sources(model: nn.Module) -> DETRMaskSources | LocalMaskSources | None:
    """Empty ones for a model with a mask head; None for others."""
    if getattr(model, 'mask_head', None) is None:
        return None
    return LocalMaskSources() if isinstance(model, PanopticLocalDETR) else DETRMaskSources()
