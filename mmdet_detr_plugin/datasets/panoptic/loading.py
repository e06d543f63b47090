"""mmdet's ``LoadPanopticAnnotations`` without panopticapi, which is in no package registry."""

import mmdet.datasets.transforms as mmdet_transforms
import numpy as np
from mmdet.structures.mask import BitmapMasks

from ...registry import TRANSFORMS
from .segment_map import read_segment_map

VOID = 255  # in gt_seg_map, as losses and data preprocessors have it


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(mmdet_transforms.LoadPanopticAnnotations):
    """Boxes, labels and masks of things, and the map of the labels of things and stuff.

    As mmdet's, but for crowds: they are void (255) in ``gt_seg_map``, as are pixels of no segment. mmdet leaves a crowd's pixels labelled
    as one thing, although it is none of the ``instances``. A thing or stuff segment without a pixel is refused, not dropped: most likely
    the PNG is another image's.

    Args:
        num_things_classes: labels below are things. Needed for data sets that do not say which segments are crowds, as mmdet's
            ``CocoPanopticDataset``, where a crowd is a segment of a thing's label that is no thing; ``StrictCocoPanopticDataset`` says so.
        kwargs: mmdet's, all of them: ``with_bbox``, ``with_label``, ``with_mask``, ``with_seg``, ``box_type``, ``imdecode_backend`` (not
            used, as ids must not be changed by decoding), ``backend_args``.

    Adds to the results: ``gt_bboxes``, ``gt_bboxes_labels`` (T,), ``gt_ignore_flags`` (T,), ``gt_masks`` (``BitmapMasks`` of T), and
    ``gt_seg_map`` (H, W), uint8.

    Raises:
        ValueError: when crowds cannot be told, a label is above 254, instances and segments differ, or the PNG is missing, unreadable, of
            another size than the image, or without a segment that it should have.
    """

    def __init__(
        self,
        with_bbox: bool = True,
        with_label: bool = True,
        with_mask: bool = True,
        with_seg: bool = True,
        box_type: str = 'hbox',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
        num_things_classes: int | None = None,
    ) -> None:
        # past mmdet's own, which stops without panopticapi
        super(mmdet_transforms.LoadPanopticAnnotations, self).__init__(
            with_bbox=with_bbox,
            with_label=with_label,
            with_mask=with_mask,
            with_seg=with_seg,
            with_keypoints=False,
            box_type=box_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )
        self.num_things_classes = num_things_classes

    def _load_masks_and_semantic_segs(self, results: dict) -> None:
        path = results.get('seg_map_path')
        if path is None:  # images without ground truth
            return
        segments = results['segments_info']
        ids = read_segment_map(path, results['ori_shape'][:2], [segment['id'] for segment in segments], self.backend_args)
        seg_map = np.full(ids.shape, VOID, dtype=np.uint8)
        masks, labels = [], []
        for segment in segments:
            label, mask = segment['category'], ids == segment['id']
            if label >= VOID:
                raise ValueError(f'{path}: label {label} does not fit into gt_seg_map, whose 255 is void; at most 255 classes are possible')
            if segment['is_thing']:
                masks.append(mask.astype(np.uint8))
                labels.append(label)
            elif self._is_crowd(segment, path):
                continue
            seg_map[mask] = label
        instances = [instance['bbox_label'] for instance in results.get('instances', [])]
        if labels != instances:
            raise ValueError(
                f'{path}: the things of segments_info have the labels {labels[:12]}, the instances {instances[:12]}; expected the same, in '
                'the same order, so that masks belong to boxes'
            )
        if self.with_mask:
            results['gt_masks'] = BitmapMasks(masks, *ids.shape)
        if self.with_seg:
            results['gt_seg_map'] = seg_map

    def _is_crowd(self, segment: dict, path: str) -> bool:
        """Of a segment that is no thing: whether it is a crowd of things, not stuff."""
        if 'is_crowd' in segment:
            return bool(segment['is_crowd'])
        if self.num_things_classes is None:
            raise ValueError(
                f'{path}: the data set does not say whether segment {segment["id"]} is stuff or a crowd of things. Set '
                "num_things_classes of LoadPanopticAnnotations, or use the data set type 'mmdet_detr_plugin.StrictCocoPanopticDataset'."
            )
        return segment['category'] < self.num_things_classes

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(with_bbox={self.with_bbox}, with_label={self.with_label}, with_mask={self.with_mask}, '
            f'with_seg={self.with_seg}, box_type={self.box_type!r}, num_things_classes={self.num_things_classes})'
        )
