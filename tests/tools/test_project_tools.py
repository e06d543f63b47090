"""The project's own command lines, scripts and pages."""

import json
import re
import runpy
import subprocess
import sys

import pytest

from mmdet_detr_plugin.comparison.run_records import last_checkpoint, seconds_per_epoch
from mmdet_detr_plugin.files import write_json
from mmdet_detr_plugin.visualization.side_by_side import draw_side_by_side

from ..conftest import ROOT

PAGES = [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('configs/*/README.md'))]


def python(*args, **kwargs):
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, **kwargs)


def test_make_shapes_writes_once_and_says_so(tmp_path):
    args = (ROOT / 'tools/make_shapes.py', tmp_path / 'shapes', '--train', 3, '--test', 2, '--size', 64)
    assert 'train.json (3 images)' in python(*args).stdout
    stamp = (tmp_path / 'shapes/annotations/train.json').stat().st_mtime_ns
    assert 'is there already' in python(*args).stdout
    assert (tmp_path / 'shapes/annotations/train.json').stat().st_mtime_ns == stamp
    assert 'train.json (4 images)' in python(*args[:3], 4, *args[4:]).stdout


def test_make_config_refuses_a_folder_that_was_not_converted(tmp_path, shapes_dir, monkeypatch):
    config = ROOT / 'configs/detr/detr_r18_8xb2-1x_coco.py'
    for folder, message in ((tmp_path, 'does not exist; expected'), (shapes_dir, 'was not written by tools/convert_dataset.py')):
        monkeypatch.setattr(sys, 'argv', ['make_config.py', str(config), str(folder)])
        with pytest.raises(SystemExit, match=f'error: .*{message}'):
            runpy.run_path(str(ROOT / 'tools/make_config.py'), run_name='__main__')


def test_make_config_takes_a_shipped_name_and_writes_a_config_file(tmp_path, shapes_dir, monkeypatch):
    source = tmp_path / 'coco'
    source.mkdir()
    for name in ('annotations', 'train', 'test'):
        (source / name).symlink_to(shapes_dir / name)
    monkeypatch.chdir(tmp_path)

    def command(tool, *args):  # in this process, which imports mmdet once
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')

    command('convert_dataset', source, '--out', tmp_path / 'data')
    command('make_config', 'detr_r18_8xb2-1x_coco', tmp_path / 'data')
    written = tmp_path / 'data' / 'detr_r18_8xb2-1x_coco.py'
    assert written.is_file()  # a config without .py could not be read
    text = written.read_text()
    command('make_config', 'detr_r18_8xb2-1x_coco', tmp_path / 'data')
    assert written.read_text() == text
    written.write_text(f'# mine\n{text}')
    (tmp_path / 'mine.py').write_text("_base_ = 'data/detr_r18_8xb2-1x_coco.py'\n")
    for config, out in (('detr_r18_8xb2-1x_coco', written), (written, written), (written, tmp_path / 'mine.py')):
        before = out.read_text()
        with pytest.raises(SystemExit, match='would be lost; choose another --out'):
            command('make_config', config, tmp_path / 'data', '--out', out)
        assert out.read_text() == before


def test_set_up_names_wrong_options_and_wrong_python():
    script = ROOT / 'tools/setup_env.sh'
    for args, message in (
        (['--nonsense'], "unknown option '--nonsense'"),
        (['--torch-index'], '--torch-index needs a value'),
        (['--versions', 'nowhere.txt'], 'nowhere.txt is missing'),
    ):
        done = subprocess.run(['bash', script, *args], capture_output=True, text=True)
        assert done.returncode == 1 and message in done.stderr


def test_seconds_per_epoch_and_last_checkpoint_from_a_run(tmp_path):
    with pytest.raises(ValueError, match='has no log of training iterations'):
        seconds_per_epoch(tmp_path)
    with pytest.raises(FileNotFoundError, match='has no last_checkpoint'):
        last_checkpoint(tmp_path)
    for run, lines in (
        ('1', '{"time": 0.5, "epoch": 1, "iter": 20}\n{"time": 0.7, "epoch": 1, "iter": 50}\n{"coco/bbox_mAP": 0.1, "step": 1}\n'),
        ('2', '{"time": 0.6, "epoch": 2, "iter": 100}\n{"time": 0.'),
    ):
        (tmp_path / run / 'vis_data').mkdir(parents=True)
        (tmp_path / run / 'vis_data' / 'scalars.json').write_text(lines)
    assert seconds_per_epoch(tmp_path) == pytest.approx(0.6 * 50)
    (tmp_path / 'iterations' / '1' / 'vis_data').mkdir(parents=True)
    (tmp_path / 'iterations' / '1' / 'vis_data' / 'scalars.json').write_text('{"time": 0.5, "iter": 20}\n{"time": 0.5, "iter": 80}\n')
    assert seconds_per_epoch(tmp_path / 'iterations') == pytest.approx(0.5 * 80)  # log_processor=dict(by_epoch=False)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert last_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_number_of_compilers_follows_cores_and_memory(tmp_path):
    """Compilers that memory is too small for are killed, again in every run."""
    text = (ROOT / 'tools/setup_env.sh').read_text()
    function = re.search(r'^compilers\(\).*?^}', text, re.S | re.M)[0]
    files = {'/proc/meminfo': tmp_path / 'meminfo', '/sys/fs/cgroup': tmp_path}
    for name, stand_in in files.items():
        function = function.replace(name, str(stand_in))

    def compilers(available_gib, limit='max', used_gib=0, cores=8):
        (tmp_path / 'meminfo').write_text(f'MemTotal: 1 kB\nMemAvailable:   {available_gib * 1024 * 1024} kB\n')
        (tmp_path / 'memory.max').write_text(str(limit))
        (tmp_path / 'memory.stat').write_text(f'anon {used_gib * 1024**3}\nfile {99 * 1024**3}\n')
        done = subprocess.run(['bash', '-euc', f'nproc() {{ echo {cores}; }}; {function}; compilers'], capture_output=True, text=True)
        return int(done.stdout)

    assert compilers(64) == 8 and compilers(7) == 3 and compilers(1) == 1
    assert compilers(64, limit=8 * 1024**3) == 4 and compilers(64, limit=8 * 1024**3, used_gib=3) == 2 and compilers(64, cores=2) == 2


def test_set_up_leaves_environments_of_others_alone(tmp_path):
    """A .venv without pip (uv's) and with packages was emptied."""
    for name in ('tools', 'mmdet_detr_plugin'):
        (tmp_path / name).mkdir()
    for name in ('setup_env.sh', 'versions.txt'):
        (tmp_path / 'tools' / name).write_text((ROOT / 'tools' / name).read_text())
    package = tmp_path / '.venv/lib/python3.11/site-packages/theirs-1.0.dist-info'
    package.mkdir(parents=True)
    done = subprocess.run(['bash', tmp_path / 'tools/setup_env.sh'], capture_output=True, text=True)
    assert done.returncode == 1 and 'packages that this script did not install' in done.stderr and package.is_dir()


def test_picture_shows_a_column_for_each_model(tmp_path, shapes_dir):
    import cv2

    write_json(tmp_path / 'found.json', [dict(image_id=image, category_id=1, bbox=[20, 20, 60, 60], score=0.9) for image in range(1, 9)])
    sizes = []
    for models in (1, 3):
        files = {f'model {i}': tmp_path / 'found.json' for i in range(models)}
        draw_side_by_side(shapes_dir / 'annotations/test.json', shapes_dir / 'test', files, tmp_path / 'x' / 'picture.png', num_images=3)
        sizes.append(cv2.imread(str(tmp_path / 'x' / 'picture.png')).shape)
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] == pytest.approx(2 * sizes[0][1], rel=0.02)


def test_pages_name_only_files_that_exist():
    text = '\n'.join(page.read_text() for page in PAGES)
    named = set(re.findall(r'\b((?:configs|docs|tools|tests|mmdet_detr_plugin)/[\w./{}-]+\.(?:py|sh|md|png|txt))', text))
    generated = {'tools/train.py', 'tools/test.py'}  # mmdet's
    assert len(named) > 50
    assert not [name for name in named - generated if not (ROOT / name).is_file()]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page):
    """Files, and headings by the anchors that GitHub gives them."""
    links = re.findall(r'\]\(([^)\s]+)\)', page.read_text())
    for link in [link for link in links if '://' not in link]:
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        headings = re.findall(r'^#+ (.+)$', re.sub(r'```.*?```', '', target.read_text(), flags=re.S), re.M) if anchor else []
        assert not anchor or anchor in {re.sub(r'[^\w -]', '', text.lower()).replace(' ', '-') for text in headings}, link


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_are_whole(page):
    """What an edit that went wrong leaves behind: a block of code that does not end, a part that stands twice."""
    text = page.read_text()
    fences = re.findall(r'^```(\w*)$', text, re.M)
    assert len(fences) % 2 == 0 and all(fences[::2]) and not any(fences[1::2])
    parts = [part for part in text.split('\n\n') if part.count('\n') > 1]
    assert not [part for part in parts if parts.count(part) > 1]


@pytest.mark.parametrize(
    'folder, figures', [('small/results/aids', ('mAP', 'mAP_50')), ('shapes/results/parts', ('mAP', 'mAP_50', 'mAP_75'))]
)
def test_ablation_tables_are_those_of_the_kept_results(folder, figures):
    text = (ROOT / 'docs/little_data.md').read_text()
    table = text.split(f'configs/{folder}/', 1)[1].split('\n\n')[1]
    shown = sorted([float(cell) for cell in row.strip('|').split('|')[1:]] for row in table.splitlines()[2:])
    results = [json.loads(path.read_text()) for path in (ROOT / 'configs' / folder).glob('*.json')]
    kept = sorted([*(found['metrics'][name] for name in figures), found['seconds_per_epoch']] for found in results)
    assert [row[:-1] for row in shown] == [row[:-1] for row in kept]
    assert [row[-1] for row in shown] == pytest.approx([row[-1] for row in kept], abs=0.5)  # whole seconds


def test_commands_of_the_pages_have_the_options_they_show(monkeypatch, capsys):
    def help_of(script):  # in this process, which imports mmdet once: by themselves most of the commands take five seconds to do so
        monkeypatch.setattr(sys, 'argv', [script, '--help'])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / script), run_name='__main__')
        assert not stopped.value.code
        return capsys.readouterr().out

    blocks = re.findall(r'```bash\n(.*?)```', '\n'.join(page.read_text() for page in PAGES), re.S)
    commands = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line.startswith('python tools/')]
    assert commands
    usages = {}
    for command in commands:
        script, *args = command.removeprefix('python ').split('#')[0].split()
        options = [arg.split('=')[0] for arg in args if arg.startswith('--')]
        if options and script not in usages:
            usages[script] = help_of(script)
        assert (ROOT / script).is_file() and all(option in usages[script] for option in options), command
