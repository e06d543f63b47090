"""What makes mmdet's data sets of COCO's formats refuse what mmdet would quietly drop, shift or fail on without a name."""

import logging
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path

import mmcv
from mmdet.datasets.api_wrappers import COCO
from mmdet.structures import DetDataSample
from mmengine.logging import print_log

from .data_files import check_file_name, refuse_code
from .sample_randomness import SampleRandomness


class StrictReading:
    """Goes before mmdet's ``CocoDataset`` or a subclass of it: ``class StrictX(StrictReading, X)``.

    What the pipeline draws belongs to the sample once training has set ``sample_randomness``.

    Attributes:
        kind: the format's name, as messages have it.
        parts: what the format consists of.
        remedy: how to get such a file.
    """

    kind: str
    parts: str
    remedy: str

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
                f'{self.ann_file} cannot be read ({type(error).__name__}: {error!s:.200}). Expected a {self.kind}: {self.parts}; write it '
                f'anew with {self.remedy}.'
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
                f'The annotation file {self.ann_file} does not exist (working directory {Path.cwd()}). Expected a {self.kind}; '
                f'set data_root and ann_file, or make one with {self.remedy}.'
            )
        self.COCOAPI = self._load_and_check  # mmdet parses the file with this; checking its result saves parsing it twice
        try:
            data_list = super().load_data_list()
        finally:
            del self.COCOAPI
        if not self.test_mode:
            self._check_objects(data_list)
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

    def _load_and_check(self, path: str) -> COCO:
        try:
            coco = self._checked(path)
        except (JSONDecodeError, UnicodeDecodeError, AssertionError, RecursionError) as error:
            raise ValueError(
                f'{self.ann_file}: not a {self.kind} ({type(error).__name__}: {error}); expected an object with the lists "images", '
                '"annotations" and "categories".'
            ) from error
        except ValueError as error:
            raise ValueError(f'{self.ann_file}: {error}') from error
        self._check_classes([category['name'] for category in coco.dataset['categories']])
        for text in (*self._left_out(coco.dataset), *self._oddities(coco.dataset)):
            print_log(f'{self.ann_file}: {text}', 'current', logging.WARNING)
        return coco

    def _left_out(self, content: dict) -> Iterator[str]:
        """Categories that the config does not name: right for a subset, and wrong where a class was added to the data since."""
        other = {item['id']: item['name'] for item in content['categories'] if item['name'] not in self.metainfo['classes']}
        count = other and sum(item.get('category_id') in other for item in content.get('annotations', []))
        if count:
            yield (
                f'{count} annotations are of {list_names(list(other.values()))}, which metainfo.classes does not name: these objects count '
                'as background. If the data has new classes, make the config anew (tools/make_config.py)'
            )

    def _check_classes(self, in_file: list[str]) -> None:
        classes = self.metainfo['classes']
        if isinstance(classes, str):
            raise ValueError(f'metainfo.classes must be a tuple of names, got the string {classes!r}; write ({classes!r}, )')
        unknown = [name for name in classes if name not in in_file]
        if unknown:
            raise ValueError(
                f'metainfo.classes names {list_names(unknown)}, which {self.ann_file} does not have; its categories are '
                f'{list_names(in_file)}. Set metainfo=dict(classes=...) of the data set to names from the file, and num_classes of the '
                'model to match.'
            )
        in_order = [name for name in in_file if name in classes]
        if list(classes) != in_order:
            raise ValueError(
                f'metainfo.classes is in another order than the categories of {self.ann_file}: expected {list_names(in_order)}, got '
                f"{list_names(classes)}. Labels follow the file, so names would be swapped; use the file's order."
            )


def _is_readable(path: str) -> bool:
    try:
        return mmcv.imread(path) is not None
    except Exception:
        return False


def list_names(names, most: int = 12) -> str:
    shown = ', '.join(repr(name) for name in names[:most])
    return f'({shown}{", ..." if len(names) > most else ""})'
