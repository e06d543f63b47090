"""The detector: backbone, pyramid encoder, and a head that selects queries and refines their boxes."""

import copy

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import to_device
from ...registry import MODELS
from ..detector import feature_padding_mask
from .head import View


@MODELS.register_module()
class LocalDETR(BaseDetector):
    """DETR with queries from the image, that attend to the inside of their boxes. Set prediction: no anchors, no NMS.

    Args:
        backbone: config; the feature maps it returns are used, finest first.
        neck: config of ``PyramidEncoder``.
        bbox_head: config of ``LocalDETRHead``.
        train_cfg: handed to the head.
        test_cfg: handed to the head.
        data_preprocessor: config; mmdet's ``DetDataPreprocessor``.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        bbox_head = copy.deepcopy(bbox_head)
        bbox_head.update({key: copy.deepcopy(cfg) for key, cfg in (('train_cfg', train_cfg), ('test_cfg', test_cfg)) if cfg is not None})
        self.backbone = MMDET_MODELS.build(copy.deepcopy(backbone))
        self.neck = MMDET_MODELS.build(copy.deepcopy(neck))
        self.bbox_head = MMDET_MODELS.build(bbox_head)
        if self.neck.embed_dims != self.bbox_head.embed_dims:
            raise ValueError(
                f'neck.embed_dims is {self.neck.embed_dims}, bbox_head.embed_dims is {self.bbox_head.embed_dims}; they must be equal'
            )

    def extract_feat(self, batch_inputs: Tensor, img_shapes: list | None = None) -> tuple[list[Tensor], View]:
        """(B, 3, H, W) -> memory (B, D, h, w) of each level, and where the images lie. Without sizes nothing counts as padding."""
        height, width = batch_inputs.shape[-2:]
        img_shapes = img_shapes or [(height, width)] * len(batch_inputs)
        feats = self.backbone(batch_inputs)
        masks = [feature_padding_mask(img_shapes, (height, width), feat.shape[-2:], feat.device) for feat in feats]
        scale = torch.tensor([[[w / width, h / height] * 2] for h, w in img_shapes])
        return self.neck(feats, masks[-1]), View(to_device(scale, feats[0].device), masks)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses by name; mmengine sums them."""
        return self.bbox_head.loss(*self._memory_of(batch_inputs, batch_data_samples), batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with ``pred_instances`` (bboxes in xyxy, scores, labels), best first; in original pixels with ``rescale``."""
        results = self.bbox_head.predict(*self._memory_of(batch_inputs, batch_data_samples), batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """Class logits (L, B, Q, K) and boxes_cxcywh_norm (L, B, Q, 4) of all decoder layers."""
        outputs = self.bbox_head(*self._memory_of(batch_inputs, batch_data_samples))
        return outputs.logits, outputs.boxes

    def _memory_of(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> tuple[list[Tensor], View]:
        shapes = None if batch_data_samples is None else [sample.img_shape[:2] for sample in batch_data_samples]
        return self.extract_feat(batch_inputs, shapes)
