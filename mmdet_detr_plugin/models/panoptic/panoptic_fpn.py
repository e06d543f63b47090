"""mmdet's Panoptic FPN, whose predictions keep the instances that its segments are made of."""

from mmdet.models.detectors import PanopticFPN as MMDetPanopticFPN
from mmdet.structures import SampleList
from torch import Tensor

from ...registry import MODELS


@MODELS.register_module()
class PanopticFPN(MMDetPanopticFPN):
    """``pred_instances`` beside ``pred_panoptic_seg``, so that boxes and masks can be evaluated too.

    ``test_cfg.panoptic.score_thr``: instances below it take no part in segments; where mmdet puts this number (``test_cfg.rcnn.score_thr``)
    it would cut off the low scores that average precision is made of. Suppression keeps the higher score, so segments are the same.
    """

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        feats = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(feats, batch_data_samples, rescale=False)
        instances = self.roi_head.predict(feats, proposals, batch_data_samples, rescale=rescale)
        stuff = self.semantic_head.predict(feats, [sample.metainfo for sample in batch_data_samples], rescale)
        least = self.test_cfg.panoptic.get('score_thr', 0)
        segments = self.panoptic_fusion_head.predict([found[found.scores >= least] for found in instances], stuff)
        samples = self.add_pred_to_datasample(batch_data_samples, segments)
        for sample, found in zip(samples, instances, strict=True):
            sample.pred_instances = found
        return samples
