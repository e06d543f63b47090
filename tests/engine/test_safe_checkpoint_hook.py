"""Whatever is interrupted, and wherever: no checkpoint is lost or half-written, and the resumed run ends as the straight one."""

import builtins
import errno
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet_detr_plugin.engine import atomic_local_backend

from ..tools.test_resuming import assert_equal
from .tiny_training import tiny_runner


class Killed(BaseException):
    """``kill -9``: nothing on the disk changes after it."""


class Disk:
    """Counts the changes that are made to files; after ``limit`` of them the process is dead. A write that dies leaves half a file."""

    def __init__(self, monkeypatch, limit: int | None) -> None:
        self.limit, self.changes = limit, 0
        for module, name in ((os, 'replace'), (os, 'remove'), (Path, 'unlink')):
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))
        monkeypatch.setattr(atomic_local_backend, 'open', self.open, raising=False)
        monkeypatch.setattr('mmengine.fileio.backends.local_backend.open', self.open, raising=False)
        monkeypatch.setattr('mmengine.hooks.checkpoint_hook.open', self.open, raising=False)

    def dies(self) -> bool:
        self.changes += 1
        return self.limit is not None and self.changes > self.limit

    def counted(self, function):
        def wrapper(*args, **kwargs):
            if self.dies():
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    def open(self, path, mode='r', **kwargs):
        file = builtins.open(path, mode, **kwargs)  # noqa: SIM115
        if 'w' in mode:
            write = file.write

            class HalfWritten:
                def __enter__(inner):
                    return inner

                def __exit__(inner, *error):
                    file.close()

                def write(inner, content):
                    if self.dies():
                        write(content[: len(content) // 2])
                        raise Killed
                    return write(content)

                flush, fileno = file.flush, file.fileno

            return HalfWritten()
        return file


def run(work: Path, limit: int | None = None, resume: bool = False, **settings) -> int:
    """Train; returns the number of changes on the disk. ``limit``: killed after as many."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch, limit)
        try:
            tiny_runner(work, resume, **settings).train()
            assert limit is None or disk.changes <= limit
        except Killed:
            pass
        return disk.changes


def files(work: Path) -> set[str]:
    return {path.name for path in work.iterdir() if path.is_file() and path.suffix != '.py'}  # without mmengine's dated config


@pytest.fixture(scope='module', params=[dict(max_keep_ckpts=1), dict(max_keep_ckpts=2, interval=2), dict(max_keep_ckpts=-1)], ids=str)
def straight(request, tmp_path_factory):
    work = tmp_path_factory.mktemp('straight') / 'run'
    return request.param, work, run(work, checkpoint=request.param)


def test_straight_run_keeps_what_mmengine_keeps(straight, tmp_path):
    settings, work, _ = straight
    tiny_runner(tmp_path, checkpoint=dict(settings, type='CheckpointHook')).train()
    assert files(work) - {'last_validated'} == files(tmp_path)


def test_killed_at_every_change_on_the_disk(straight, tmp_path):
    settings, reference, changes = straight
    assert changes >= 20
    for limit in range(changes):
        work = tmp_path / str(limit)
        run(work, limit, checkpoint=settings)
        pointer = work / 'last_checkpoint'
        if pointer.is_file():
            torch.load(pointer.read_text(), weights_only=True)  # whole, and there
        for path in work.glob('*.pth'):
            torch.load(path, weights_only=True)
        run(work, resume=True, checkpoint=settings)
        assert files(work) == files(reference), limit
        for path in reference.glob('*.pth'):
            expected, got = (torch.load(folder / path.name, weights_only=True) for folder in (reference, work))
            for key in set(expected) - {'meta', 'message_hub'}:
                assert_equal(got[key], expected[key], f'killed after {limit} changes: {path.name} {key}')
            best = [checkpoint['message_hub']['runtime_info'].get('best_score') for checkpoint in (expected, got)]
            assert best[0] == best[1] and all(got['meta'][key] == expected['meta'][key] for key in ('epoch', 'iter'))


def test_mmengines_own_hook_loses_its_checkpoint(tmp_path):
    """The test above can fail: with mmengine's hook some kills leave no checkpoint to go on with."""
    settings = dict(type='CheckpointHook', max_keep_ckpts=1)
    lost = 0
    for limit in range(4, 16):
        work = tmp_path / str(limit)
        run(work, limit, checkpoint=settings)
        try:
            torch.load((work / 'last_checkpoint').read_text(), weights_only=True)
        except (OSError, RuntimeError, EOFError):
            lost += 1
    assert lost >= 3


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    tiny_runner(tmp_path, epochs=2).train()
    before = {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}

    def full(path, mode='r'):
        if 'epoch_3' in str(path):
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        return builtins.open(path, mode)

    monkeypatch.setattr(atomic_local_backend, 'open', full, raising=False)
    with pytest.raises(OSError, match='No space left on device.*epoch_3.pth'):
        tiny_runner(tmp_path, resume=True).train()
    assert {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')} == before
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert not list(tmp_path.glob('*.tmp'))


class CountValidations(Hook):
    def __init__(self) -> None:
        self.epochs = []

    def before_val_epoch(self, runner) -> None:
        self.epochs.append(runner.epoch)


def test_only_an_interrupted_validation_is_made_up_for(tmp_path):
    tiny_runner(tmp_path).train()
    for last_validated, expected in (('4', []), ('3', [4])):
        (tmp_path / 'last_validated').write_text(last_validated)
        count = CountValidations()
        runner = tiny_runner(tmp_path, resume=True)
        runner.register_hook(count)
        runner.train()
        assert count.epochs == expected


def test_new_run_in_an_old_folder_forgets_the_old_validation(tmp_path):
    tiny_runner(tmp_path).train()
    assert (tmp_path / 'last_validated').read_text() == '4'
    tiny_runner(tmp_path, epochs=1, val_evaluator=None, val_dataloader=None, val_cfg=None, checkpoint=dict(save_best=None)).train()
    assert not (tmp_path / 'last_validated').exists()
