"""mmdet's ``CocoPanopticDataset`` that refuses what mmdet would quietly drop, shift or fail on without a name."""

import os.path as osp
from collections.abc import Iterable

from mmdet.datasets import CocoPanopticDataset

from ...registry import DATASETS
from ..strict_reading import StrictReading, list_names
from .annotation_checks import CheckedCOCOPanoptic, check_things_first, divided_stuff, small_segments
from .loading import VOID


@DATASETS.register_module()
class StrictCocoPanopticDataset(StrictReading, CocoPanopticDataset):
    """Panoptic COCO-format data set with clear errors, for every model; what ``StrictCocoDataset`` is for boxes.

    Deliberate differences from mmdet's: PNGs have the names that the annotations give them, not those of the images; ``segments_info``
    says which segments are crowds (``is_crowd``); ``thing_classes`` and ``stuff_classes`` of ``metainfo`` come from the file's ``isthing``.
    ``instances`` are the things that are no crowds.

    Raises:
        FileNotFoundError: when the annotation file is missing.
        ValueError: when it is no panoptic COCO JSON, an entry of it is not COCO's (``annotation_checks``), ``metainfo.classes`` are not all
            of its categories in its order, things do not come first, there are more than 255 classes, an image to train on has no
            annotation or there is no segment to train on, ``data_prefix`` lacks ``seg``, or (on access) an image or its PNG cannot be
            read or transformed, or has another size than stated.
    """

    kind = 'panoptic COCO JSON'
    parts = (
        'images with "id", "file_name", "height" and "width", annotations with "image_id", "file_name" and "segments_info", whose segments '
        'have "id", "category_id", "bbox", "area" and "iscrowd", and categories with "isthing"'
    )
    remedy = "the tool that made it, in the format of COCO's panoptic annotations (tools/make_shapes.py writes an example)"

    def load_data_list(self) -> list[dict]:
        if not self.test_mode and not self.data_prefix.get('seg'):
            raise ValueError(
                f'data_prefix of the data set {self.ann_file} has no seg ({dict(self.data_prefix)}); set it to the folder of the PNGs of '
                "segments, as data_prefix=dict(img='train2017/', seg='annotations/panoptic_train2017/')"
            )
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        info = super().parse_data_info(raw_data_info)
        image = raw_data_info['raw_img_info']
        if not image['segm_file']:  # of a test set
            info['seg_map_path'] = None
        elif self.data_prefix.get('seg'):
            info['seg_map_path'] = osp.join(self.data_prefix['seg'], image['segm_file'])
        # ids are unique within an image only
        own = [segment for segment in raw_data_info['raw_ann_info'] if segment['image_id'] == info['img_id']]
        crowds = {segment['id'] for segment in own if segment.get('iscrowd')}
        for segment in info['segments_info']:
            segment['is_thing'], segment['is_crowd'] = bool(segment['is_thing']), segment['id'] in crowds
        return info

    def _checked(self, path: str) -> CheckedCOCOPanoptic:
        return CheckedCOCOPanoptic(path)

    def _oddities(self, content: dict) -> Iterable[str]:
        return (*small_segments(content), *divided_stuff(content))

    def _load_and_check(self, path: str) -> CheckedCOCOPanoptic:
        coco = super()._load_and_check(path)
        categories, classes = coco.dataset['categories'], self.metainfo['classes']
        if missing := [category['name'] for category in categories if category['name'] not in classes]:
            raise ValueError(
                f'metainfo.classes lacks {list_names(missing)} of {self.ann_file}; name all of its categories, '
                'as panoptic segmentation gives every pixel a class, or remove those and their segments from the file.'
            )
        if len(categories) > VOID:
            raise ValueError(f'{self.ann_file} has {len(categories)} categories; at most {VOID} are possible, as label {VOID} is void.')
        try:
            check_things_first(categories)
        except ValueError as error:
            raise ValueError(f'{self.ann_file} {error}') from error
        self._set_things_and_stuff(categories)
        if not self.test_mode and (missing := [image for image in coco.dataset['images'] if not image['segm_file']]):
            raise ValueError(
                f'{self.ann_file} has no annotation for {len(missing)} of its {len(coco.dataset["images"])} images, the first: '
                f'{missing[0]["file_name"]!r}. Expected one for each image to train on, with its PNG and segments.'
            )
        return coco

    def _set_things_and_stuff(self, categories: list[dict]) -> None:
        for key, is_thing in (('thing_classes', True), ('stuff_classes', False)):
            found = tuple(category['name'] for category in categories if bool(category['isthing']) == is_thing)
            stated = tuple(self._metainfo.get(key, ()))
            # COCO's are there when no others are stated
            if stated not in ((), found, CocoPanopticDataset.METAINFO[key]):
                raise ValueError(
                    f'metainfo.{key} is {list_names(stated)}, isthing in {self.ann_file} says {list_names(found)}; leave it out, or make '
                    'them equal.'
                )
            self._metainfo[key] = found

    def _check_objects(self, data_list: list[dict]) -> None:
        if all(segment['is_crowd'] for item in data_list for segment in item['segments_info']):
            raise ValueError(
                f'{self.ann_file} has no segment to train on: its {len(data_list)} images hold nothing but crowds. Expected a segment with '
                'iscrowd 0.'
            )
