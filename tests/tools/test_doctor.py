"""The command ``tools/doctor.py``."""

import json
import runpy
import subprocess
import sys

import pytest

from ..conftest import ROOT

LOCAL = 'local-detr_r18-half_1xb4-10e_shapes'


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, in an empty folder: (exit status, what it printed)."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['doctor.py', *map(str, args)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools' / 'doctor.py'), run_name='__main__')
        return int(end.value.code), capsys.readouterr().out

    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    return run


def test_environment_alone(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / 'tools' / 'doctor.py')], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == '', done.stdout + done.stderr
    assert done.stdout.startswith('environment\n') and 'data\n' not in done.stdout and done.stdout.endswith(' notes\n')
    assert not list(tmp_path.iterdir())


def test_a_config_on_a_folder_gives_all_areas_and_a_file(doctor, shapes_dir, tmp_path):
    status, shown = doctor(LOCAL, '--data', shapes_dir, '--json', tmp_path / 'findings.json')
    assert status == 0, shown
    assert [line for line in shown.splitlines() if not line.startswith(' ')][:5] == ['environment', '', 'data', '', 'recipe']
    found = json.loads((tmp_path / 'findings.json').read_text())
    assert all(set(item) == {'area', 'severity', 'finding', 'advice'} for item in found)
    lines = shown.splitlines()
    for item in found:  # the same, in the same order, each with its advice below
        assert lines[lines.index(f'  {item["severity"].upper():7}  {item["finding"]}') + 1] == f'           -> {item["advice"]}'
    assert lines[-1].startswith('0 errors, ')
    assert sorted(path.name for path in shapes_dir.iterdir()) == ['.generated_shapes', 'annotations', 'test', 'train']  # nothing written


def test_a_folder_alone_is_checked_as_it_comes(doctor, shapes_dir, tmp_path):
    content = json.loads((shapes_dir / 'annotations' / 'train.json').read_text())
    content['annotations'][0]['bbox'] = [5, 5, 0, 9]
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'train.json').write_text(json.dumps(content))
    (tmp_path / 'train').symlink_to(shapes_dir / 'train')
    status, shown = doctor('--data', tmp_path)
    assert status == 0, shown
    assert 'WARNING' in shown and 'smaller than a pixel' in shown and 'recipe' not in shown


@pytest.mark.parametrize(
    'args, words',
    [
        (['detr_r18_8xb2-1x_coco'], ['data/coco/annotations/instances_train2017.json does not exist', '2 errors']),
        (['no_such_config'], ['no_such_config cannot be used: FileNotFoundError', '1 error, ']),
        (['../broken.py'], ['../broken.py cannot be used', 'SyntaxError', 'configs/']),
        (['--data', 'nowhere'], ['nowhere cannot be used: FileNotFoundError', 'is not a folder']),
        ([LOCAL, '--data', '../empty'], ['../empty cannot be used: ValueError', 'no layout known']),
    ],
)
def test_what_cannot_be_used_is_an_error_and_ends_with_status_1(doctor, tmp_path, args, words):
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    (tmp_path / 'empty').mkdir()
    status, shown = doctor(*args)
    assert status == 1
    assert 'ERROR' in shown and all(word in shown for word in words), shown


def test_an_environment_without_mmengine_is_still_examined(doctor, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmengine.config', None)  # importing it fails
    status, shown = doctor(LOCAL)
    assert status == 1 and 'torch' in shown and 'cannot be used: ModuleNotFoundError' in shown
