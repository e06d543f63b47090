"""mmdet's Panoptic FPN (Kirillov et al. 2019) with its instances among the results, so that their AP can be measured too."""

import copy
from collections.abc import Sequence

import mmdet.models as mmdet_models
from mmdet.structures import SampleList
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ...registry import MODELS


@MODELS.register_module()
class PanopticFPN(mmdet_models.PanopticFPN):
    """mmdet's ``PanopticFPN`` that keeps what it fuses: ``pred_instances`` beside ``pred_panoptic_seg``.

    Instances for AP need a low ``test_cfg.rcnn.score_thr``, those of the panoptic map a high one, which is ``test_cfg.panoptic.score_thr``
    here. The map is the one that mmdet gives with that threshold in ``test_cfg.rcnn``: boxes of lower scores neither suppress better ones
    nor take their places.

    Args:
        kwargs: mmdet's. ``test_cfg.panoptic`` may have ``score_thr`` (default: 0, all instances); it is not written into.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**copy.deepcopy(kwargs))

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with ``pred_panoptic_seg`` and ``pred_instances`` of things; in the original images' pixels with ``rescale``."""
        feats = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(feats, batch_data_samples, rescale=False)
        instances = self.roi_head.predict(feats, proposals, batch_data_samples, rescale=rescale)
        semantic = self.semantic_head.predict(feats, [sample.metainfo for sample in batch_data_samples], rescale)
        for sample, found, seg in zip(batch_data_samples, instances, self._fused(instances, semantic), strict=True):
            sample.pred_instances, sample.pred_panoptic_seg = found, seg
        return batch_data_samples

    def _fused(self, instances: Sequence[InstanceData], semantic: Sequence[Tensor]) -> list[PixelData]:
        threshold = (self.test_cfg.get('panoptic') or {}).get('score_thr', 0.0)
        return self.panoptic_fusion_head.predict([found[found.scores > threshold] for found in instances], semantic)
