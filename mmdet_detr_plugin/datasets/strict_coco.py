"""mmdet's ``CocoDataset`` that refuses what mmdet would quietly drop, shift or fail on without a name."""

from collections.abc import Iterable

from mmdet.datasets import CocoDataset

from ..registry import DATASETS
from .coco_checks import CheckedCOCO, check_for_evaluation, odd_boxes
from .strict_reading import StrictReading, list_names


@DATASETS.register_module()
class StrictCocoDataset(StrictReading, CocoDataset):
    """COCO-format data set with clear errors; for every model, so that both sides of a comparison read the same.

    mmdet drops annotations of unknown classes in silence, and takes labels in the file's order of categories whatever the order of
    ``metainfo.classes``. What the pipeline draws belongs to the sample once training has set ``sample_randomness``. Boxes that mmdet leaves
    out, and that COCO itself has a few of (smaller than a pixel, outside of the image), are announced.

    Raises:
        FileNotFoundError: when the annotation file is missing.
        ValueError: when it is no COCO JSON, an entry of it is not COCO's (``coco_checks``), a class is not in it, the classes are in
            another order, there is no object to train on, or (on access) an image cannot be read or
            transformed, or has another size than stated.
    """

    kind = 'COCO JSON'
    parts = 'images with "id", "file_name", "height" and "width", annotations with "id", "image_id", "category_id" and "bbox"'
    remedy = 'tools/convert_dataset.py'

    def _checked(self, path: str) -> CheckedCOCO:
        coco = CheckedCOCO(path)
        if self.test_mode:
            check_for_evaluation(coco.dataset)
        return coco

    def _oddities(self, content: dict) -> Iterable[str]:
        return odd_boxes(content)

    def _check_objects(self, data_list: list[dict]) -> None:
        if all(instance['ignore_flag'] for item in data_list for instance in item['instances']):
            crowds = sum(len(item['instances']) for item in data_list)
            raise ValueError(
                f'{self.ann_file} has no object to train on: its {len(data_list)} images hold {crowds} crowd regions and nothing else of '
                f'the classes {list_names(self.metainfo["classes"])}. Expected an annotation with iscrowd 0 and a box inside of its image; '
                'images that shall have no labels, as in semi-supervised training, are read by mmdet.CocoDataset.'
            )
