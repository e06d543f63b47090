"""mmdet's visualiser for detections, also where nothing was found."""

import numpy as np
from mmdet.visualization import DetLocalVisualizer as MMDetLocalVisualizer

from ..registry import VISUALIZERS


@VISUALIZERS.register_module()
class DetLocalVisualizer(MMDetLocalVisualizer):
    """mmdet's, which fails on a panoptic map without any segment; here the image stays as it is."""

    def _draw_panoptic_seg(self, image: np.ndarray, panoptic_seg, classes: list[str], palette: list | None) -> np.ndarray:
        void = panoptic_seg.metainfo.get('ignore_index', len(panoptic_seg.metainfo.get('label_names', classes)))
        if (np.asarray(panoptic_seg.sem_seg) == void).all():
            return image
        return super()._draw_panoptic_seg(image, panoptic_seg, classes, palette)
