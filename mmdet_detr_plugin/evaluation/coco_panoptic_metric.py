"""mmdet's ``CocoPanopticMetric`` without panopticapi, which is in no package registry."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.evaluation.metrics.coco_panoptic_metric import parse_pq_results, print_panoptic_table
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path, join_path
from mmengine.logging import MMLogger

from ..datasets.data_files import refuse_code
from ..datasets.panoptic.annotation_checks import CheckedCOCOPanoptic
from ..datasets.panoptic.segment_map import read_segment_map
from ..registry import METRICS
from .panoptic_quality import Segment, SegmentCounts, count_segments
from .panoptic_results import PanopticResultFiles


@METRICS.register_module()
class CocoPanopticMetric(BaseMetric):
    """PQ, SQ and RQ in percent, over all classes, things (``_th``) and stuff (``_st``), of those that occur.

    Images are compared as they come, so that memory does not grow with their size, and several processes give what one gives. A mean over
    no class is NaN.

    Predictions are ``pred_panoptic_seg.sem_seg`` (1, H, W) at the image's size: label + ``INSTANCE_OFFSET`` x instance, ``num_classes`` (or
    the ``ignore_index`` of ``pred_panoptic_seg``) where there is none, as all of mmdet's panoptic models and ``PanopticDETR`` give them.

    Args:
        ann_file: panoptic COCO JSON. Its categories in its order are the labels.
        seg_prefix: folder of its PNGs; not needed with ``format_only``.
        classwise: whether to print the numbers of each class.
        format_only: write the results without comparing them, for test sets; needs ``outfile_prefix``.
        outfile_prefix: write results in COCO's format: ``{outfile_prefix}.panoptic.json`` and ``{outfile_prefix}.panoptic/``.
        backend_args: of mmengine's file backend, for ``ann_file`` and the PNGs.
        collect_device: as of all metrics, 'cpu' or 'gpu'.
        prefix: of the metrics' names.

    Raises:
        ValueError: when arguments do not fit together, ``ann_file`` is no panoptic COCO JSON, its categories are not the data set's
            classes, an image is not in it, a PNG does not fit, or a prediction has another size than the ground truth or a label too large.
    """

    default_prefix = 'coco_panoptic'

    def __init__(
        self,
        ann_file: str | None = None,
        seg_prefix: str | None = None,
        classwise: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not ann_file:
            raise ValueError(
                "CocoPanopticMetric needs ann_file, a panoptic COCO JSON such as 'data/coco/annotations/panoptic_val2017.json'"
            )
        if not seg_prefix and not format_only:
            raise ValueError(f"CocoPanopticMetric needs seg_prefix, the folder of {ann_file}'s PNGs of segments")
        if format_only and not outfile_prefix:
            raise ValueError("CocoPanopticMetric with format_only=True needs outfile_prefix, such as 'work_dirs/coco/results'")
        self.ann_file, self.seg_prefix, self.backend_args = ann_file, seg_prefix, backend_args
        self.classwise, self.format_only = classwise, format_only
        self.files = PanopticResultFiles(outfile_prefix) if outfile_prefix else None
        self.categories, self._images = self._read()

    def _read(self) -> tuple[list[dict], dict]:
        """The categories, and of each image its (H, W), the name of its PNG and its segments."""
        refuse_code(self.ann_file, 'ann_file')
        try:
            with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
                coco = CheckedCOCOPanoptic(path)
        except OSError as error:
            raise ValueError(f'ann_file {self.ann_file} cannot be read: {error}') from error
        except (ValueError, AssertionError, RecursionError) as error:  # AssertionError: pycocotools, for a JSON that is no object
            raise ValueError(f'ann_file {self.ann_file}: {error!s:.400}') from error
        categories = coco.dataset['categories']
        labels = {category['id']: label for label, category in enumerate(categories)}
        images = {}
        for image in coco.imgs.values():
            segments = [Segment(one['id'], labels[one['category_id']], bool(one.get('iscrowd'))) for one in coco.imgToAnns[image['id']]]
            name = image['segm_file'] or PurePosixPath(image['file_name']).with_suffix('.png').as_posix()
            images[image['id']] = ((image['height'], image['width']), name, segments)
        return categories, images

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Compare a batch of predictions with the ground truth, and write them where files are wanted."""
        self._check_classes()
        if self.files and not self.results:
            self.files.start()
        for sample in data_samples:
            pred_map, segments = self._predicted(sample)
            image_id = sample['img_id']
            shape, file_name, gt_segments = self._image(sample, pred_map)
            counts = annotation = None
            if not self.format_only:
                path = join_path(self.seg_prefix, file_name)
                gt_map = read_segment_map(path, shape, [segment.id for segment in gt_segments], self.backend_args)
                counts = count_segments(gt_map, gt_segments, pred_map, segments, len(self.categories))
            if self.files:
                category_ids = [category['id'] for category in self.categories]
                annotation = dict(image_id=image_id, **self.files.write_image(file_name, pred_map, segments, category_ids))
            self.results.append((counts, annotation))

    def compute_metrics(self, results: list[tuple[SegmentCounts | None, dict | None]]) -> dict[str, float]:
        """The metrics by name, in percent; none with ``format_only``."""
        if self.files:
            self.files.finish([annotation for _, annotation in results])
            MMLogger.get_current_instance().info(f'Results are written to {self.files.json_path} and {self.files.folder}/')
        if self.format_only:
            return {}
        qualities = SegmentCounts.summed((counts for counts, _ in results), len(self.categories)).qualities()
        is_thing = np.array([bool(category['isthing']) for category in self.categories])
        groups = dict(All=np.ones_like(is_thing), Things=is_thing, Stuff=~is_thing)
        averages = {name: _average(qualities[:, chosen]) for name, chosen in groups.items()}
        by_class = {category['name']: _average(of_class[:, None]) for category, of_class in zip(self.categories, qualities.T, strict=True)}
        print_panoptic_table(averages, by_class if self.classwise else None, logger='current')
        return parse_pq_results(averages)

    def _check_classes(self) -> None:
        classes = list((self.dataset_meta or {}).get('classes') or [])
        names = [category['name'] for category in self.categories]
        if classes != names:
            raise ValueError(
                f'the classes of the data set are {classes[:12]} ({len(classes)}), the categories of {self.ann_file} {names[:12]} '
                f'({len(names)}); expected the same in the same order, as labels follow it'
            )

    def _image(self, sample: dict, pred_map: np.ndarray) -> tuple[tuple[int, int], str, list[Segment]]:
        image_id = sample['img_id']
        if image_id not in self._images:
            raise ValueError(
                f'image {image_id} ({sample.get("img_path")}) is not among the {len(self._images)} images of {self.ann_file}; give the '
                'metric the ann_file of the data set that is evaluated'
            )
        shape = self._images[image_id][0]
        if pred_map.shape != shape:
            raise ValueError(
                f'the prediction of image {image_id} ({sample.get("img_path")}) is {pred_map.shape[1]} x {pred_map.shape[0]} pixels '
                f'(width x height), {self.ann_file} states {shape[1]} x {shape[0]}; expected the size of the image: does the model predict '
                "with rescale=True, and does the pipeline record ori_shape and, with Resize, 'scale_factor'?"
            )
        return self._images[image_id]

    def _predicted(self, sample: dict) -> tuple[np.ndarray, list[Segment]]:
        """An image's map (H, W), and the segments in it."""
        if 'pred_panoptic_seg' not in sample:
            raise ValueError(
                f'image {sample["img_id"]} has no pred_panoptic_seg, only {sorted(sample)}; CocoPanopticMetric needs a panoptic model '
                '(PanopticDETR: with mask_head and panoptic_on)'
            )
        predicted = sample['pred_panoptic_seg']
        pred_map = np.asarray(predicted['sem_seg'].cpu())[0]
        num_classes = len(self.categories)
        void = {num_classes, predicted.get('ignore_index', num_classes)}
        segments = [Segment(value, value % INSTANCE_OFFSET) for value in np.unique(pred_map).tolist()]
        segments = [segment for segment in segments if segment.label not in void]
        if wrong := [segment.id for segment in segments if segment.id < 0 or segment.label >= num_classes]:
            raise ValueError(
                f'the prediction of image {sample["img_id"]} holds {wrong[:6]}; expected label + {INSTANCE_OFFSET} x instance with a label '
                f'below {num_classes}, the number of classes, or {num_classes} where nothing is. Is num_classes of the model that of '
                'the data?'
            )
        return pred_map, segments


def _average(qualities: np.ndarray) -> dict[str, float]:
    """mmdet's form of the mean over classes that occur, of (3, K)."""
    occurring = qualities[:, ~np.isnan(qualities[0])]
    pq, sq, rq = occurring.mean(1).tolist() if occurring.size else [float('nan')] * 3
    return dict(pq=pq, sq=sq, rq=rq, n=occurring.shape[1])
