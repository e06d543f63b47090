"""Starting commands as a user would, and leaving none behind."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Command:
    """A running command with its output in a file."""

    def __init__(self, command: list, folder: Path, log: Path, environ: dict | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with open(log, 'a') as output:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environ, start_new_session=True
            )

    def output(self) -> str:
        return self.log.read_text(errors='replace')

    def finish(self, success: bool = True, seconds: float = 300) -> str:
        """Wait for the end, check the exit status, return all output."""
        code = self.process.wait(timeout=seconds)
        assert (code == 0) == success, self.output()[-4000:]
        return self.output()

    def wait_for(self, condition, seconds: float = 300) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < limit, self.output()[-4000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """``kill -9`` to the command and its children, those in sessions of their own too."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(['ps', '-eo', 'pid=,ppid='], capture_output=True, text=True).stdout
    children = {}
    for line in listing.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, queue = [], [pid]
    while queue:
        queue += (new := children.get(queue.pop(), []))
        found += new
    return found


@contextmanager
def running(command: list, folder: Path, log: Path, environ: dict | None = None) -> Iterator[Command]:
    """The command is dead afterwards, whatever happens."""
    started = Command(command, folder, log, environ)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()
