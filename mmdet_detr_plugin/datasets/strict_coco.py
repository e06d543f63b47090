"""mmdet's ``CocoDataset`` that refuses what mmdet would quietly drop, shift or fail on without a name."""

import logging
from json import JSONDecodeError
from pathlib import Path

import mmcv
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.logging import print_log

from ..registry import DATASETS
from .coco_checks import CheckedCOCO, check_for_evaluation, odd_boxes
from .data_files import check_file_name, refuse_code
from .sample_randomness import SampleRandomness


@DATASETS.register_module()
class StrictCocoDataset(CocoDataset):
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

    def __init__(self, *args, **kwargs) -> None:
        self.sample_randomness = SampleRandomness()
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        try:
            super().full_init()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, AssertionError) as error:
            if isinstance(error, ValueError) and str(self.ann_file) in str(error):
                raise
            raise ValueError(
                f'{self.ann_file} cannot be read ({type(error).__name__}: {error!s:.200}). Expected a COCO JSON: images with "id", '
                '"file_name", "height" and "width", annotations with "id", "image_id", "category_id" and "bbox"; write it anew with '
                'tools/convert_dataset.py.'
            ) from error

    def load_proposals(self) -> None:
        refuse_code(self.proposal_file, 'proposal_file')
        super().load_proposals()

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        check_file_name(raw_data_info['raw_img_info']['file_name'], self.ann_file)
        return super().parse_data_info(raw_data_info)

    def __getitem__(self, idx: int) -> dict:
        with self.sample_randomness.of(idx):
            return super().__getitem__(idx)

    def load_data_list(self) -> list[dict]:
        if '://' not in self.ann_file and not Path(self.ann_file).is_file():
            raise FileNotFoundError(
                f'The annotation file {self.ann_file} does not exist (working directory {Path.cwd()}). Expected a COCO JSON; '
                'set data_root and ann_file, or make one with tools/convert_dataset.py.'
            )
        self.COCOAPI = self._load_and_check  # mmdet parses the file with this; checking its result saves parsing it twice
        try:
            data_list = super().load_data_list()
        finally:
            del self.COCOAPI
        if not self.test_mode and all(instance['ignore_flag'] for item in data_list for instance in item['instances']):
            crowds = sum(len(item['instances']) for item in data_list)
            raise ValueError(
                f'{self.ann_file} has no object to train on: its {len(data_list)} images hold {crowds} crowd regions and nothing else of '
                f'the classes {_list(self.metainfo["classes"])}. Expected an annotation with iscrowd 0 and a box inside of its image.'
            )
        return data_list

    def prepare_data(self, idx: int):
        info = self.get_data_info(idx)
        path, stated = info['img_path'], (info['height'], info['width'])
        try:
            results = self.pipeline(info)
        except Exception as error:
            if _is_readable(path):
                raise ValueError(
                    f'The pipeline failed on image {path}, which can be read ({type(error).__name__}: {error}; the traceback above names '
                    'the transform).'
                ) from error
            state = 'cannot be read as an image' if Path(path).exists() else 'is missing'
            raise ValueError(
                f'Image {path} {state} ({type(error).__name__}: {error}). Expected a readable image, as listed in '
                f'{self.ann_file}; repair it, or remove it from that file.'
            ) from error
        self._check_size(results, path, stated)
        return results

    def _check_size(self, results, path: str, stated: tuple) -> None:
        sample = results.get('data_samples') if isinstance(results, dict) else None
        real = sample.get('ori_shape') if isinstance(sample, DetDataSample) else None
        if real is not None and tuple(real[:2]) != stated:
            raise ValueError(
                f'Image {path} is {real[1]} x {real[0]} pixels (width x height), {self.ann_file} states {stated[1]} x {stated[0]}, so that '
                'its boxes belong elsewhere (resized later, or turned by EXIF?). Correct width, height and boxes there, or leave it out.'
            )

    def _load_and_check(self, path: str) -> CheckedCOCO:
        try:
            coco = CheckedCOCO(path)
            if self.test_mode:
                check_for_evaluation(coco.dataset)
        except (JSONDecodeError, UnicodeDecodeError, AssertionError, RecursionError) as error:
            raise ValueError(
                f'{self.ann_file}: not a COCO JSON ({type(error).__name__}: {error}); expected an object with the lists "images", '
                '"annotations" and "categories".'
            ) from error
        except ValueError as error:
            raise ValueError(f'{self.ann_file}: {error}') from error
        self._check_classes([category['name'] for category in coco.dataset['categories']])
        for text in odd_boxes(coco.dataset):
            print_log(f'{self.ann_file}: {text}', 'current', logging.WARNING)
        return coco

    def _check_classes(self, in_file: list[str]) -> None:
        classes = self.metainfo['classes']
        if isinstance(classes, str):
            raise ValueError(f'metainfo.classes must be a tuple of names, got the string {classes!r}; write ({classes!r}, )')
        unknown = [name for name in classes if name not in in_file]
        if unknown:
            raise ValueError(
                f'metainfo.classes names {_list(unknown)}, which {self.ann_file} does not have; its categories are {_list(in_file)}. '
                'Set metainfo=dict(classes=...) of the data set to names from the file, and num_classes of the model to '
                'match.'
            )
        in_order = [name for name in in_file if name in classes]
        if list(classes) != in_order:
            raise ValueError(
                f'metainfo.classes is in another order than the categories of {self.ann_file}: expected {_list(in_order)}, got '
                f"{_list(classes)}. Labels follow the file, so names would be swapped; use the file's order."
            )


def _is_readable(path: str) -> bool:
    try:
        return mmcv.imread(path) is not None
    except Exception:
        return False


def _list(names, most: int = 12) -> str:
    shown = ', '.join(repr(name) for name in names[:most])
    return f'({shown}{", ..." if len(names) > most else ""})'
