"""The detector: images and data samples in, losses or detections out (paper, section 3.2 and figure 2)."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import SampleList
from torch import Tensor

from ..devices import to_device
from ..registry import MODELS


@MODELS.register_module()
class DETR(BaseDetector):
    """Backbone, transformer neck and set-prediction head. No anchors, no NMS: all queries are returned.

    Args:
        backbone: config; the last feature map it returns is used.
        neck: config of a ``TransformerNeck``.
        bbox_head: config of the plugin's or mmdet's ``DETRHead``.
        train_cfg: handed to the head; its ``assigner`` replaces the head's default.
        test_cfg: handed to the head; its ``max_per_img`` limits the detections returned.
        data_preprocessor: config; mmdet's ``DetDataPreprocessor``.
        compile_transformer: run neck and head through ``torch.compile``; a dict holds its arguments (``dynamic=True`` unless it says
            otherwise).
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        compile_transformer: bool | dict = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        # Copies, because some of mmdet's classes write into the config they were given.
        bbox_head = copy.deepcopy(bbox_head)
        bbox_head.update({key: copy.deepcopy(cfg) for key, cfg in (('train_cfg', train_cfg), ('test_cfg', test_cfg)) if cfg is not None})
        self.backbone = MMDET_MODELS.build(copy.deepcopy(backbone))
        self.neck = MMDET_MODELS.build(copy.deepcopy(neck))
        self.bbox_head = MMDET_MODELS.build(bbox_head)
        if self.neck.embed_dims != self.bbox_head.embed_dims:
            raise ValueError(
                f'neck.embed_dims is {self.neck.embed_dims}, bbox_head.embed_dims is {self.bbox_head.embed_dims}; they must be equal'
            )
        if compile_transformer is not False:
            arguments = {} if compile_transformer is True else compile_transformer
            for part in (self.neck, self.bbox_head):
                part.compile(**{'dynamic': True, **arguments})  # images of all sizes come

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), the backbone's last feature map."""
        return self.backbone(batch_inputs)[-1]

    def forward_hidden_states(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> Tensor:
        """(B, 3, H, W) -> hidden states of all decoder layers (L, B, Q, D). Without data samples nothing counts as padding."""
        feats = self.extract_feat(batch_inputs)
        padding_mask = None
        if batch_data_samples is not None:
            padding_mask = feature_padding_mask(
                [sample.img_shape[:2] for sample in batch_data_samples], batch_inputs.shape[-2:], feats.shape[-2:], feats.device
            )
        hidden_states, _ = self.neck(feats, padding_mask)
        return hidden_states

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of all decoder layers, by name; mmengine sums them."""
        return self.bbox_head.loss(self.forward_hidden_states(batch_inputs, batch_data_samples), batch_data_samples=batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with ``pred_instances`` (bboxes in xyxy, scores, labels), best first; in original pixels with ``rescale``."""
        results = self.bbox_head.predict(
            self.forward_hidden_states(batch_inputs, batch_data_samples), batch_data_samples=batch_data_samples, rescale=rescale
        )
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """What ``DETRHead.forward`` returns, for all decoder layers."""
        return self.bbox_head(self.forward_hidden_states(batch_inputs, batch_data_samples))


def feature_padding_mask(
    img_shapes: Sequence[tuple[int, int]], batch_shape: tuple[int, int], feat_shape: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Which cells of the feature map are padding.

    Equals nearest-neighbour resizing of the pixel mask, as the reference does it, without making that mask.

    Args:
        img_shapes: (height, width) of each image without padding.
        batch_shape: (H, W) of the padded batch.
        feat_shape: (h, w) of the feature map.

    Returns:
        (B, h, w), True = padding; None when no image is padded.

    Raises:
        ValueError: when an image is larger than the batch.
    """
    if all(tuple(shape) == tuple(batch_shape) for shape in img_shapes):
        return None
    if any(h > batch_shape[0] or w > batch_shape[1] for h, w in img_shapes):
        raise ValueError(
            f'img_shape of a data sample exceeds the batch: {list(map(tuple, img_shapes))} in {tuple(batch_shape)}; '
            'img_shape must be the size of the image before padding'
        )
    sizes = to_device(torch.tensor([tuple(shape) for shape in img_shapes], dtype=torch.float32), device)  # (B, 2)
    beyond = []
    for axis in (0, 1):
        # The pixel that a cell samples, in float32 as torch's nearest interpolation computes it.
        step = float(np.float32(batch_shape[axis] / feat_shape[axis]))
        sampled = torch.floor(torch.arange(feat_shape[axis], dtype=torch.float32, device=device) * step)
        beyond.append(sampled[None] >= sizes[:, axis, None])  # (B, h) and (B, w)
    return beyond[0][:, :, None] | beyond[1][:, None, :]
