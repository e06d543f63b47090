"""Which checkpoint an interrupted run goes on from, where the newest one may be damaged."""

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None when every byte is as it was written."""
    if not path.exists():
        return 'is not there'
    if path.is_dir():  # deepspeed
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # compares every part with its checksum
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        return f'cannot be read ({error}; {path.stat().st_size} bytes)'
    return damaged and f'is damaged (the checksum of its part {damaged} is wrong)'


def resumable_checkpoint(work_dir: Path, out_dir: str | None, filename_tmpl: str, warn: Callable[[str], None]) -> str | None:
    """The checkpoint that ``work_dir/last_checkpoint`` names, or the newest whole one before it.

    Args:
        out_dir: where the run's checkpoints are written, in a folder of its name, when not to ``work_dir``.
        filename_tmpl: names of checkpoints, ``epoch_{}.pth``.
        warn: told about a checkpoint that has moved or is damaged.

    Returns:
        Its path or address; None when the run has not written any, and begins anew.

    Raises:
        ValueError: when the newest checkpoint is damaged and there is no whole one before it, or it belongs to another folder: one that
            came from elsewhere must not make training read other files.
    """
    pointer = work_dir / 'last_checkpoint'
    if not pointer.is_file():
        return None
    named = pointer.read_text(errors='replace').strip()
    path, moved = Path(named), work_dir / Path(named).name
    if named and not _is_of_run(named, work_dir, out_dir):
        if '://' in named or not moved.exists():
            raise ValueError(
                f'{pointer} names {named[:200]!r}, which is no checkpoint in the folder of this run. Where that is meant, resume from it '
                'with --resume FILE (resume=True, load_from=FILE); to start anew, remove last_checkpoint'
            )
        warn(f'{named} has moved; resuming from {moved}.')
        path = moved
    elif '://' in named:
        return named
    fault = fault_of(path) if named else f'is not named: {pointer} is empty'
    if fault is None:
        return str(path)
    for other in older_checkpoints(path if named else None, work_dir, filename_tmpl):
        if fault_of(other) is None:
            warn(f'The newest checkpoint {named} {fault}. Resuming from the one before it instead: {other}.')
            return str(other)
    best = sorted(map(str, work_dir.glob('best_*.pth')))
    raise ValueError(
        f'the newest checkpoint {named} {fault}, and there is no whole one before it to resume from. Restore the file from a copy, or '
        f'start a new run in another work_dir{f" from the weights of load_from={best[0]}" if best else ""} (with max_keep_ckpts of 2 or '
        'more there is one to fall back to)'
    )


def dropped_load_from(cfg: Config) -> str | None:
    """The ``load_from`` that mmdet's ``tools/train.py`` drops when it is given ``--resume``, whether or not there is anything to resume.

    Args:
        cfg: of the runner. What it no longer holds is read from its file, or from this command's ``--cfg-options``.
    """
    if given := [argument.partition('=')[2] for argument in sys.argv if argument.startswith('load_from=')]:
        return given[-1] if given[-1] not in ('', 'None') else None
    return Config.fromfile(cfg.filename).get('load_from') if cfg.filename and Path(cfg.filename).is_file() else None


def _is_of_run(named: str, work_dir: Path, out_dir: str | None) -> bool:
    """Whether a checkpoint lies where this run writes."""
    run_name = work_dir.resolve().name
    if '://' in named:
        return '://' in str(out_dir or '') and named.startswith(f'{str(out_dir).rstrip("/")}/{run_name}/')
    folders = {work_dir.resolve()} | ({(Path(out_dir) / run_name).resolve()} if out_dir else set())
    return Path(named).parent.resolve() in folders


def check_named(path: str) -> None:
    """A checkpoint that the user has named.

    Raises:
        ValueError: when it is damaged.
    """
    if '://' not in path and (fault := fault_of(Path(path))):
        raise ValueError(f'the checkpoint to resume from, {path}, {fault}; name another one, or none to go on from the newest')


def older_checkpoints(path: Path | None, work_dir: Path, filename_tmpl: str) -> list[Path]:
    """Checkpoints of smaller numbers than that of ``path``, in its folder; the one written last comes first."""
    pattern = re.compile(re.escape(filename_tmpl).replace(r'\{\}', r'(\d+)'))

    def number(file: Path) -> int | None:
        match = pattern.fullmatch(file.name)
        return int(match[1]) if match else None

    folder = path.parent if path is not None and path.parent.is_dir() else work_dir
    limit = number(path) if path is not None else None
    found = [file for file in folder.iterdir() if number(file) is not None and (limit is None or number(file) < limit)]
    # by time: a higher number may be left from an earlier run in this folder
    return sorted(found, key=lambda file: (file.stat().st_mtime_ns, number(file)), reverse=True)
