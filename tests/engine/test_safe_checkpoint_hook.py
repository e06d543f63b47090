"""Whatever is interrupted, and wherever: no checkpoint is lost or half-written, and the resumed run ends as the straight one."""

import builtins
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmdet_detr_plugin import files as files_module
from mmdet_detr_plugin.engine import SafeCheckpointHook
from mmdet_detr_plugin.engine.resumable_checkpoint import resumable_checkpoint

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
        monkeypatch.setattr(files_module, 'open', self.open, raising=False)
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
    assert files(work) == files(tmp_path)


def test_killed_at_every_change_on_the_disk(straight, tmp_path):
    settings, reference, changes = straight
    assert changes >= 20
    for limit in range(changes):
        work = tmp_path / str(limit)
        run(work, limit, checkpoint=settings)
        pointer = work / 'last_checkpoint'
        if pointer.is_file():
            last = torch.load(pointer.read_text(), weights_only=True)  # whole, and there
            best = last['message_hub']['runtime_info'].get('best_ckpt')
            assert best is None or Path(best).is_file()
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


def open_on_full_disk(path: Path, mode: str):
    """``open``; the temporary file of one checkpoint is a device that has no room."""
    return open('/dev/full', 'wb') if path.name == 'epoch_3.pth.tmp' else open(path, mode)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The system ends a write at this many bytes, in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('way', ['full', 'half'])
def test_checkpoint_that_cannot_be_written_keeps_the_last_good_one(tmp_path, monkeypatch, way):
    tiny_runner(tmp_path, epochs=2).train()
    before = {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}
    runner = tiny_runner(tmp_path, resume=True)
    reason = 'No space left on device' if way == 'full' else 'File too large'
    if way == 'full':
        monkeypatch.setattr('mmdet_detr_plugin.files.open', open_on_full_disk, raising=False)
    limit = file_size_limit(len(before['epoch_2.pth']) // 2) if way == 'half' else nullcontext()
    message = rf'{reason}: a checkpoint could not be written.*last good one is .*epoch_2.pth.*with --resume'
    with limit, pytest.raises(OSError, match=message):
        runner.train()
    assert {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')} == before
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert not list(tmp_path.glob('*.tmp'))
    monkeypatch.undo()
    assert validations(tiny_runner(tmp_path, resume=True)) == [3, 4]


def damage(path: Path, way: str) -> None:
    content = path.read_bytes()
    if way == 'missing':
        path.unlink()
    elif way == 'changed':
        place = content.index(torch.load(path, weights_only=True)['state_dict']['linear.weight'].numpy().tobytes())
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.write_bytes(dict(truncated=content[: len(content) // 2], empty=b'', zeros=bytes(len(content)))[way])


@pytest.mark.parametrize('way', ['truncated', 'empty', 'zeros', 'changed', 'missing', 'pointer'])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_resumed(tmp_path, monkeypatch, way):
    tiny_runner(tmp_path, checkpoint=dict(max_keep_ckpts=2)).train()
    newest = tmp_path / 'epoch_4.pth'
    expected = torch.load(newest, weights_only=True)
    damage(newest, 'truncated' if way == 'pointer' else way)
    if way == 'pointer':
        (tmp_path / 'last_checkpoint').write_text('')
    text = warnings_of(monkeypatch, tiny_runner(tmp_path, resume=True, checkpoint=dict(max_keep_ckpts=2)))
    reasons = '(is not there|cannot be read|is damaged|is empty)'
    assert re.search(rf'The newest checkpoint .*{reasons}.* Resuming .* instead: .*epoch_3.pth', text)
    got = torch.load(newest, weights_only=True)
    for name in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(got[name], expected[name], name)


def test_without_a_whole_checkpoint_nothing_starts_silently(tmp_path, monkeypatch):
    tiny_runner(tmp_path / 'a', epochs=3).train()  # keeps one
    damage(tmp_path / 'a' / 'epoch_3.pth', 'truncated')
    before = files(tmp_path / 'a')
    with pytest.raises(ValueError, match=r'epoch_3.pth cannot be read .* no whole one before it.*load_from=.*best_tiny_score_epoch_3.pth'):
        tiny_runner(tmp_path / 'a', resume=True).train()
    with pytest.raises(ValueError, match=r'the checkpoint to resume from, .*epoch_3.pth, cannot be read .*name another one'):
        tiny_runner(tmp_path / 'a', resume=True, load_from=str(tmp_path / 'a' / 'epoch_3.pth')).train()
    assert files(tmp_path / 'a') == before
    text = warnings_of(monkeypatch, tiny_runner(tmp_path / 'b', epochs=1, resume=True))
    assert re.search(r'Nothing to resume from: .*last_checkpoint is not there. The training starts from the beginning', text)


@pytest.mark.parametrize('given_by', ['config', 'command', 'neither'])
def test_a_first_start_with_resume_starts_from_load_from(tmp_path, monkeypatch, given_by):
    """mmdet's train.py sets it to None for ``--resume``, which a job that may be started anew has in its command from the first time on."""
    tiny_runner(tmp_path / 'a', epochs=1).train()
    weights = str(tmp_path / 'a' / 'epoch_1.pth')
    (tmp_path / 'config.py').write_text(f'load_from = {weights!r}\n' if given_by == 'config' else '')
    options = ['--cfg-options', f'load_from={weights}'] if given_by == 'command' else []
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py', '--resume', *options])
    straight = tiny_runner(tmp_path / 'b', epochs=1, load_from=None if given_by == 'neither' else weights)
    straight.train()

    def start(epochs):
        runner = tiny_runner(tmp_path / 'c', epochs=epochs, resume=True)
        object.__setattr__(runner.cfg, '_filename', str(tmp_path / 'config.py'))
        return runner, warnings_of(monkeypatch, runner)

    runner, text = start(1)
    assert f'starts from {"the beginning" if given_by == "neither" else f"the weights of load_from={weights}"}.' in text
    assert_equal(runner.model.state_dict(), straight.model.state_dict(), 'model')
    runner, text = start(2)
    assert text == '' and runner._load_from == str(tmp_path / 'c' / 'epoch_1.pth')


def test_a_checkpoint_of_an_earlier_run_is_not_fallen_back_to(tmp_path):
    """The earlier run had one for every epoch, the new one for every second."""
    for settings in (dict(max_keep_ckpts=-1), dict(interval=2, max_keep_ckpts=2)):
        tiny_runner(tmp_path, checkpoint=dict(settings, save_best=None)).train()
    damage(tmp_path / 'epoch_4.pth', 'truncated')
    warnings = []
    assert resumable_checkpoint(tmp_path, None, 'epoch_{}.pth', warnings.append) == str(tmp_path / 'epoch_2.pth')
    assert len(warnings) == 1


class CountValidations(Hook):
    def __init__(self) -> None:
        self.epochs = []

    def before_val_epoch(self, runner) -> None:
        self.epochs.append(runner.epoch)


def validations(runner) -> list[int]:
    count = CountValidations()
    runner.register_hook(count)
    runner.train()
    return count.epochs


def test_only_an_interrupted_validation_is_made_up_for(tmp_path):
    assert validations(tiny_runner(tmp_path / 'a')) == [1, 2, 3, 4]
    assert validations(tiny_runner(tmp_path / 'a', resume=True)) == []
    # without val_evaluator the checkpoint is that of an epoch whose validation has not begun
    nothing = dict(val_evaluator=None, val_dataloader=None, val_cfg=None, param_scheduler=None, checkpoint=dict(save_best=None))
    tiny_runner(tmp_path / 'b', epochs=2, **nothing).train()
    assert validations(tiny_runner(tmp_path / 'b', resume=True, param_scheduler=None)) == [2, 3, 4]
    # every second epoch has a checkpoint; that of an epoch in between is not asked for
    every_second = dict(interval=2)
    tiny_runner(tmp_path / 'c', epochs=2, checkpoint=every_second).train()
    assert validations(tiny_runner(tmp_path / 'c', resume=True, checkpoint=every_second)) == [3, 4]


def test_new_run_in_an_old_folder_does_not_lead_back_to_the_old_one(tmp_path, caplog):
    tiny_runner(tmp_path).train()
    with pytest.raises(Killed):
        run_until_first_checkpoint(tmp_path)
    assert not (tmp_path / 'last_checkpoint').exists()
    assert (tmp_path / 'last_checkpoint.earlier_run').read_text().endswith('epoch_4.pth')
    assert validations(tiny_runner(tmp_path, resume=True, epochs=2)) == [1, 2]


def run_until_first_checkpoint(work: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        Disk(monkeypatch, limit=1)  # the pointer's renaming is the first change
        tiny_runner(work).train()


def test_moved_folder_is_resumed(tmp_path):
    tiny_runner(tmp_path / 'old', epochs=2).train()
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert validations(tiny_runner(tmp_path / 'new', resume=True)) == [3, 4]
    assert not (tmp_path / 'old').exists()
    reference = tmp_path / 'reference'
    tiny_runner(reference).train()
    assert files(tmp_path / 'new') == files(reference)


def test_files_of_another_run_are_left_alone(tmp_path):
    tiny_runner(tmp_path / 'a', epochs=2).train()
    before = files(tmp_path / 'a')
    assert any(name.startswith('best_') for name in before)
    runner = tiny_runner(tmp_path / 'b', resume=True, load_from=str(tmp_path / 'a' / 'epoch_2.pth'))
    assert validations(runner) == [3, 4]
    assert files(tmp_path / 'a') == before
    assert 'best_tiny_score_epoch_3.pth' in files(tmp_path / 'b')


def test_validation_alone_writes_nothing(tmp_path):
    runner = tiny_runner(tmp_path, custom_hooks=[])
    runner.val_evaluator.metrics[0].runner_epoch = lambda: 1
    assert runner.val() == {'tiny/score': 0.2}
    assert not list(tmp_path.glob('*.pth')) and not (tmp_path / 'last_checkpoint').exists()


def warnings_of(monkeypatch, runner) -> str:
    messages = []
    monkeypatch.setattr(runner.logger, 'warning', lambda message, *args, **kwargs: messages.append(message))
    runner.train()
    return '\n'.join(messages)


def test_missing_hooks_and_checkpoints_by_iteration_are_warned_of(tmp_path, monkeypatch):
    assert warnings_of(monkeypatch, tiny_runner(tmp_path / 'a', epochs=1)) == ''
    text = warnings_of(monkeypatch, tiny_runner(tmp_path / 'b', epochs=1, custom_hooks=[]))
    assert 'without EpochSeedHook: a resumed run will differ' in text and 'without PlainCheckpointHook: torch 2.6' in text
    assert 'custom_hooks = _base_.custom_hooks + [...]' in text
    text = warnings_of(monkeypatch, tiny_runner(tmp_path / 'c', epochs=1, checkpoint=dict(by_epoch=False, interval=2)))
    assert 'resumed in the middle of an epoch sees that epoch from its start again' in text


def test_paths_and_named_local_storage_are_written_safely_too(tmp_path):
    for settings in (dict(out_dir=tmp_path / 'elsewhere'), dict(backend_args=dict(backend='local'))):
        assert SafeCheckpointHook(**settings).backend_args == dict(backend='mmdet_detr_plugin.AtomicLocalBackend')
    assert SafeCheckpointHook(out_dir='s3://bucket').backend_args is None
