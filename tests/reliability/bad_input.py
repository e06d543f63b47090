"""What a row of the table of bad inputs is, and the small project that inputs are planted in."""

import contextlib
import io
import json
import logging
import os
import re
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from ..conftest import ROOT

CLASSES = ('circle', 'square', 'triangle', 'star')
REFUSED, ANNOUNCED, WORKS = 'refused', 'announced', 'works'
DETR, FASTER_RCNN = 'detr_r18-half_1xb4-10e_shapes.py', 'faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py'


LOG = dict(writes='work($|/)', kept='everything; the run adds its log')  # of a row
PYCOCOTOOLS = ('loading annotations', 'Done (t=', 'creating index', 'index created')  # printed for every file
SMALL = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=64, embed_dims=32, feedforward_channels=32, num_encoder_layers=1, num_decoder_layers=1, num_queries=5)
    | dict(position_encoding=dict(num_feats=16)),
    bbox_head=dict(embed_dims=32),
)


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        goes_in: for people; also the test's name.
        plant: makes the input, in a sound project.
        meets: what a user calls; returns what it does for an input that works. For a command its script and arguments.
        reads: the message as it is, paths without their folders; ' ... ' where something is left out.
        outcome: REFUSED (an exception, or an exit status other than 0), ANNOUNCED (goes on, with a warning), WORKS.
        writes: names of files that may be there afterwards; everything else is as it was, byte for byte.
        kept: the same for people.
    """

    goes_in: str
    plant: Callable[['Project'], object]
    meets: Callable[['Project'], object]
    reads: str
    outcome: str = REFUSED
    is_command: bool = False
    writes: str = ''
    kept: str = 'everything'


class Project:
    """A data set of two training and two test images with four objects each, in a folder that is thrown away."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.work = root, root / 'data', root / 'work'
        random = np.random.default_rng(0)
        for split in ('train', 'test'):
            (self.data / split).mkdir(parents=True)
            images, annotations = [], []
            for number in (1, 2):
                cv2.imwrite(str(self.data / split / f'{number}.png'), random.integers(0, 255, (48, 64, 3), np.uint8))
                images.append(dict(id=number, file_name=f'{number}.png', width=64, height=48))
                annotations += [
                    dict(id=4 * number + i, image_id=number, category_id=i + 1, bbox=[5 * i, 4, 20, 30], area=600, iscrowd=0)
                    for i in range(4)
                ]
            categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
            self.write(dict(images=images, annotations=annotations, categories=categories), split)

    def file(self, split: str = 'train') -> Path:
        return self.data / 'annotations' / f'{split}.json'

    def write(self, content: object, split: str = 'train') -> None:
        self.file(split).parent.mkdir(exist_ok=True)
        self.file(split).write_text(content if isinstance(content, str) else json.dumps(content))

    def edit(self, change: Callable[[dict], object], split: str = 'train') -> None:
        content = json.loads(self.file(split).read_text())
        change(content)
        self.write(content, split)

    def image(self, number: int = 1, split: str = 'train') -> Path:
        return self.data / split / f'{number}.png'

    def config(self, base: str = DETR, **changes) -> Path:
        """A config file on this data, with a network that takes no time.

        Args:
            changes: dotted names with __ for the dots.
        """
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=f'{self.data}/'))
        evaluator = dict(ann_file=str(self.file('test')))
        settings = Config(dict.fromkeys(('train_dataloader', 'val_dataloader', 'test_dataloader'), loader))
        settings.merge_from_dict(dict(val_evaluator=evaluator, test_evaluator=evaluator, train_cfg=dict(max_epochs=1)))
        if base == DETR:
            settings.merge_from_dict(dict(model=SMALL))
        settings.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
        path = self.root / base
        lines = [f'{key} = {value!r}' for key, value in settings.to_dict().items()]
        path.write_text('\n'.join([f'_base_ = {str(ROOT / "configs" / "shapes" / base)!r}', *lines, '']))
        return path

    def snapshot(self, but: str = '') -> dict[str, bytes | None]:
        """Every file and folder with its bytes, but those whose path matches."""
        paths = ((path.relative_to(self.root).as_posix(), path) for path in sorted(self.root.rglob('*')))
        return {name: path.read_bytes() if path.is_file() else None for name, path in paths if not (but and re.match(but, name))}

    def readable(self, text: str) -> str:
        """A message without this machine's folders, on one line."""
        text = re.sub(r'\x1b\[[0-9;]*m', '', text).replace(str(ROOT), '')
        text = re.sub(rf'{re.escape(str(self.root))}/(\S*/)?(?=[\w.-]+)', '', text).replace(str(self.root), 'the folder')
        return ' '.join(text.split())


def nothing(project: Project) -> None:
    """The mistake is in the call."""


def command_line(project: Project, script: Path, *args: object) -> list[str]:
    return [str(script), *(str(arg) for arg in args)]


@contextlib.contextmanager
def warnings_and_logs():
    """A list that gets the texts of warnings, of mmengine's log, and what is printed."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    handler.setLevel(logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    output = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(output):
            warnings.simplefilter('always')
            yield texts
        texts += [str(item.message) for item in caught if item.category is UserWarning]
        texts += [line for line in output.getvalue().splitlines() if line and not line.startswith(PYCOCOTOOLS)]
    finally:
        logger.removeHandler(handler)


def what_happens(row: Row, project: Project) -> tuple[str, str]:
    """The outcome, and what is read."""
    if row.is_command:
        status, text = in_this_process(row.meets(project))
        return (WORKS, text) if status == 0 else (REFUSED, text)
    with warnings_and_logs() as texts:
        try:
            result = row.meets(project)
        except Exception as error:
            return REFUSED, str(error)
    return (WORKS, result) if isinstance(result, str) else (ANNOUNCED if texts else 'passes in silence', ' '.join(texts))


def in_this_process(command: list[str]) -> tuple[int, str]:
    """A Python script's exit status and all it prints, without the seconds that a new process takes to import torch and mmdet."""
    output, threads, environ = io.StringIO(), torch.get_num_threads(), dict(os.environ)
    before, sys.argv = (sys.argv, list(sys.path)), command
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                runpy.run_path(command[0], run_name='__main__')
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code)
            except Exception:
                traceback.print_exc()
                status = 1
    finally:
        sys.argv, sys.path[:] = before
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environ)  # mmdet's tools set LOCAL_RANK
    return status, output.getvalue()


def parts_in_order(reads: str, text: str) -> bool:
    """Whether a message has all the parts between ' ... ', one after the other."""
    at = 0
    for part in reads.split(' ... '):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
