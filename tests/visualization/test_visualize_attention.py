"""The command line: what it writes, what it leaves out, what it refuses."""

import json
import runpy
import sys

import pytest

from ..conftest import ROOT
from .conftest import load

TOOL = ROOT / 'tools/visualize_attention.py'


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Exit status, and what was printed to both streams; in this process, whose imports are done."""
    monkeypatch.chdir(tmp_path)

    def done(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(TOOL), run_name='__main__')
        printed = capsys.readouterr()
        message = exit.value.code if isinstance(exit.value.code, str) else ''  # what Python would print, with status 1
        return (1 if message else exit.value.code), printed.out, printed.err + message

    return done


@pytest.fixture
def detr(tmp_path, weights, shapes_dir):
    """Config file and checkpoint."""
    cfg = load('detr')
    cfg.test_dataloader.dataset.data_root = f'{shapes_dir}/'
    cfg.dump(tmp_path / 'detr.py')
    return tmp_path / 'detr.py', weights('detr')


def test_command_writes_a_folder_for_each_image_and_slots_and_leaves_out_what_is_broken(run, detr, photo, tmp_path):
    for folder in ('one', 'two'):  # the same name twice
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'image.png').write_bytes(photo.read_bytes())
    (tmp_path / 'one/broken.jpg').write_text('no image')
    (tmp_path / 'film.mp4').write_text('a film')
    options = ['--points', '5,5', '120,60.5', '--layer', 'all', '--heads', '--slots', 3, '--top', 2]
    status, out, err = run(*detr, 'one', *options, 'two', 'film.mp4')
    assert status == 0, err[-2000:]
    assert 'left out: one/broken.jpg: is no image' in err and 'left out: film.mp4: is a video; take images out of it' in err
    assert 'one/image.png: Shown: the 2 best queries, none of which reaches the score 0.7; wrote attention/image/' in out
    names = {'encoder.png', 'cross.png', 'heads.png', 'queries.png', 'boxes.png', 'attention.html'}
    found = {path.name: {file.name for file in path.iterdir()} for path in (tmp_path / 'attention').iterdir() if path.is_dir()}
    assert found == {'image': names, 'image-2': names}
    slots = json.loads((tmp_path / 'attention/slots.json').read_text())
    assert len(slots['image_ids']) == 3 and (tmp_path / 'attention/slots.png').is_file()
    assert 'query slots on 3 test images; wrote attention/slots.png, attention/slots.json' in out


def test_mistakes_are_named(run, detr, photo, weights, tmp_path):
    (tmp_path / 'empty').mkdir()
    other = ROOT / 'configs/shapes/faster-rcnn_r18-half_fpn_1xb4-10e_shapes.py', weights('faster_rcnn')
    for args, expected, message in (
        ((*detr, 'empty'), 1, 'error: the folder empty holds no image'),
        ((*detr, photo, '--points', '500,5'), 1, 'the point 500,5 lies outside the image of 200 x 90 pixels'),
        ((*detr, photo, '--layer', '9'), 1, 'expected a layer from 1 to 3, got 9'),
        ((*detr,), 2, 'name images, or ask for --slots'),
        ((*detr, photo, '--top', '0'), 2, '--top must be at least 1 and --slots a number of images, got 0 and None'),
        ((*detr, photo, '--score-thr', '7'), 2, '--score-thr must lie between 0 and 1, got 7.0'),
        ((*detr, photo, '--points', '5;5'), 2, "expected two numbers such as 120,80, got '5;5'"),
        ((*detr, photo, '--layer', '0'), 2, "expected a number from 1 on, or 'all', got '0'"),
        ((*other, photo), 1, 'error: attention is recorded'),
        ((*other, '--slots'), 1, 'error: query slots are the learned queries'),
        ((detr[0], 'nothing.pth', photo), 1, 'error: nothing.pth does not exist'),
    ):
        status, _, err = run(*args)
        assert status == expected and message in err, (args, err[-500:])
    assert not (tmp_path / 'attention').exists()
