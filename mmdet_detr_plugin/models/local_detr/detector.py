"""The detector: backbone, pyramid encoder, and a head that selects queries and refines their boxes."""

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...devices import integers, to_device
from ...registry import MODELS
from ..detector import SetDetector, feature_padding_mask, padding_mask_of_sizes
from .outputs import View


@MODELS.register_module()
class LocalDETR(SetDetector):
    """DETR with queries from the image, that look into their boxes.

    ``backbone`` returns feature maps, finest first, for a ``PyramidEncoder`` and a ``LocalDETRHead``.
    """

    def extract_feat(self, batch_inputs: Tensor, img_shapes: list | None = None) -> tuple[list[Tensor], View]:
        """(B, 3, H, W) -> memory (B, D, h, w) of each level, and where the images lie. Without sizes nothing counts as padding."""
        height, width = batch_inputs.shape[-2:]
        img_shapes = img_shapes or [(height, width)] * len(batch_inputs)
        feats = self.backbone(batch_inputs)
        masks = [feature_padding_mask(img_shapes, (height, width), feat.shape[-2:], feat.device) for feat in feats]
        scale = torch.tensor([[[w / width, h / height] * 2] for h, w in img_shapes])
        return self.neck(feats, masks), View(to_device(scale, feats[0].device), masks)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses by name; mmengine sums them."""
        return self.bbox_head.loss(*self._memory_of(batch_inputs, batch_data_samples), batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with ``pred_instances`` (bboxes in xyxy, scores, labels), best first; in original pixels with ``rescale``."""
        results = self.bbox_head.predict(*self._memory_of(batch_inputs, batch_data_samples), batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``DETR.detect``, but for the ``max_per_img`` best pairs of a query and a class, best first."""
        memory, view = self._memory_of_sizes(batch_inputs, sizes)
        outputs = self.bbox_head(memory, view)
        return self.bbox_head.best_pairs(outputs.logits[-1], outputs.boxes[-1])[:3]

    def layer_outputs(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """Class logits (L, B, Q, K) and boxes_cxcywh_norm (L, B, Q, 4) of all decoder layers."""
        outputs = self.bbox_head(*self._memory_of(batch_inputs, batch_data_samples))
        return outputs.logits, outputs.boxes

    def _memory_of(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> tuple[list[Tensor], View]:
        shapes = None if batch_data_samples is None else [sample.img_shape[:2] for sample in batch_data_samples]
        return self.extract_feat(batch_inputs, shapes)

    def _memory_of_sizes(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[list[Tensor], View]:
        """By tensors alone; heights and widths (B, 2)."""
        height, width = batch_inputs.shape[-2:]
        feats = self.backbone(batch_inputs)
        masks = [padding_mask_of_sizes(sizes, (height, width), feat.shape[-2:]) for feat in feats]
        scale = (sizes.flip(1) / integers((width, height), sizes.device)).repeat(1, 2)[:, None]  # (B, 1, 4)
        return self.neck(feats, masks), View(scale, masks)
