"""The commands that users type: the message reaches them, the exit status is not 0, and no file is half-written."""

from pathlib import Path

import mmdet
import torch

from ..conftest import ROOT
from .bad_input import DETR, LOG, Project, Row, command_line, nothing

TOOLS = ROOT / 'tools'
TRAIN, TEST = (Path(mmdet.__path__[0]) / '.mim' / 'tools' / name for name in ('train.py', 'test.py'))


def command(goes_in: str, plant, script: Path, arguments, reads: str, **more) -> Row:
    return Row(
        f'{script.name}: {goes_in}',
        plant,
        lambda project: command_line(project, script, *arguments(project)),
        reads,
        is_command=True,
        **more,
    )


def small(base: str = DETR, **changes):
    return lambda project: project.config(base, **changes)


def with_faster_rcnn(project: Project) -> None:
    """The config of one detector, the names of another's weights."""
    project.config()
    torch.save(
        dict(state_dict={'rpn_head.rpn_conv.weight': torch.ones(2), 'roi_head.bbox_head.fc_cls.bias': torch.ones(5)}),
        project.root / 'it.pth',
    )


def with_text(project: Project) -> None:
    project.config()
    (project.root / 'it.pth').write_text('no checkpoint')


def damaged_data(project: Project) -> None:
    project.config()
    project.file().write_text('{"images": [')


def broken_image(project: Project) -> None:
    project.config()
    project.image().write_bytes(b'no image')


def converted(project: Project) -> None:
    """What convert_dataset.py writes, cut."""
    project.file().write_text('{"info": {"format": "mmdet_detr_plugin.converted"')


def config(project: Project) -> Path:
    return project.root / DETR


def run(*options: str):
    return lambda project: (config(project), '--work-dir', project.work, *options)


def test_run(project: Project) -> tuple:
    return config(project), project.root / 'it.pth', '--work-dir', project.work


ROWS = [
    command('a truncated annotation file', damaged_data, TRAIN, run(), 'train.json: not a COCO JSON (JSONDecodeError', **LOG),
    command('an image that cannot be read', broken_image, TRAIN, run(), 'Image 1.png cannot be read as an image', **LOG),
    command('fewer outputs than classes', small(), TRAIN, run('--cfg-options', 'model.bbox_head.num_classes=3'),
            'AssertionError: The `num_classes` (3) in DETRHead of DETR does not matches the length of `classes` 4) in StrictCocoDataset',
            **LOG),
    command('a file to load that is a text', with_text, TRAIN, lambda p: run('--cfg-options', f'load_from={p.root}/it.pth')(p),
            'it.pth is truncated or no checkpoint', **LOG),
    command("Faster R-CNN's checkpoint for a DETR", with_faster_rcnn, TEST, test_run,
            "it.pth does not fit the config's DETR: 0 of its ... the model does not have: rpn_head.rpn_conv.weight", **LOG),
    command('a checkpoint that is a text', with_text, TEST, test_run, 'it.pth is truncated or no checkpoint', **LOG),
    command('two images of one id', lambda p: p.edit(lambda c: c['images'][0].update(id=2)), TOOLS / 'convert_dataset.py',
            lambda p: (p.data, '--out', p.root / 'out'), 'error: train.json: images must have different ids, and id 2 is there 2 times'),
    command('a folder that does not exist', nothing, TOOLS / 'convert_dataset.py', lambda p: (p.root / 'no', '--out', p.root / 'out'),
            'error: no is not a folder'),
    command('data that is not converted', nothing, TOOLS / 'make_config.py', lambda p: (DETR, p.data),
            'error: train.json was not written by tools/convert_dataset.py, or is damaged; convert the data set first'),
    command('converted data that is cut', converted, TOOLS / 'make_config.py', lambda p: (DETR, p.data),
            'error: train.json was not written by tools/convert_dataset.py, or is damaged'),
    command('a text for weights', with_text, TOOLS / 'convert_checkpoint.py', lambda p: (p.root / 'it.pth', p.root / 'out.pth'),
            'error: it.pth is truncated or no checkpoint'),
    command("Faster R-CNN's checkpoint", with_faster_rcnn, TOOLS / 'convert_checkpoint.py',
            lambda p: (p.root / 'it.pth', p.root / 'out.pth'),
            'error: these are weights of a two-stage detector such as Faster R-CNN'),
    command("another model's checkpoint", with_faster_rcnn, TOOLS / 'predict.py',
            lambda p: (config(p), p.root / 'it.pth', p.data / 'train', '--out', p.root / 'out'),
            'error: it.pth does not fit the model of detr_r18-half_1xb4-10e_shapes.py; expected one that was trained with it'),
    command('a folder without images', with_text, TOOLS / 'predict.py',
            lambda p: (config(p), p.root / 'it.pth', p.data / 'annotations', '--out', p.root / 'out'),
            'error: the folder annotations holds no image'),
    command('a checkpoint that is a text', with_text, TOOLS / 'export_onnx.py',
            lambda p: (config(p), p.root / 'it.pth', p.root / 'out.onnx'), 'error: it.pth is truncated or no checkpoint'),
    command('two configs of one name', small(), TOOLS / 'compare.py', lambda p: (config(p), config(p), '--work-dir', p.work),
            "error: detr_r18-half_1xb4-10e_shapes: runs are kept by the config's file name, which must differ between models", **LOG),
    command('a truncated annotation file', damaged_data, TOOLS / 'doctor.py', lambda p: (config(p),),
            'ERROR ... train.json'),
]  # fmt: skip
