"""Files that are either whole or not there."""

import hashlib
import json
import os
from pathlib import Path


def write_atomically(content: bytes, path: Path) -> None:
    """Write to a temporary file beside ``path``, then rename it: ``path`` is never half-written, and keeps what it held until then.

    Raises:
        OSError: when the disk is full or the folder cannot be written to; ``path`` is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a fixed name: what a killed process left is overwritten by the next one
    temporary = path.with_name(path.name + '.tmp')
    temporary.unlink(missing_ok=True)  # a link there, in a folder that came from elsewhere, would be written through
    try:
        with open(temporary, 'xb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else, after a crash of the machine, the new name may hold nothing
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_json(path: Path, content: dict | list) -> None:
    """As ``write_atomically``."""
    write_atomically(json.dumps(content).encode(), path)


def _sync_folder(folder: Path) -> None:
    """Renames reach the disk before what comes after them, such as the deletion of older files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
