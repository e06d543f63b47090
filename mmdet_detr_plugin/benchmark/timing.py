"""Times of several functions, measured in turns so that whatever the machine does meanwhile meets all of them; and peak memory."""

import ctypes
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def interleaved(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 1, repeat: int = 1) -> dict[str, list[float]]:
    """Seconds of every function in every round.

    Args:
        functions: by name; a result is thrown away.
        rounds: how often each is timed.
        warmup: calls of each before that.
        repeat: calls in one timing, whose mean counts; for what takes a few milliseconds.
    """
    times = {name: [] for name in functions}
    for index in range(warmup + rounds):
        for name, function in functions.items():
            synchronize()
            start = time.perf_counter()
            for _ in range(repeat):
                function()
            synchronize()
            if index >= warmup:
                times[name].append((time.perf_counter() - start) / repeat)
    return times


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions on GPUs in float32 instead of torch's default, TF32 with its 10 bits: for checks whether implementations are equal."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(times: list[float]) -> float:
    return statistics.median(times)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of our time by theirs: both of a round met the same machine."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def working_memory(function: Callable[[], object], device: str) -> float:
    """MiB that a call needs at its peak beyond what is held before; on CPUs by the kernel's count of resident pages (Linux)."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    before = resident()['VmRSS']
    function()
    return resident()['VmHWM'] - before


def print_peak_memory(make_step: Callable[[], Callable[[], object]], steps: int, device: str) -> None:
    """As JSON, MiB that making a training step and taking it took at the peak: ``peak`` without what was there before, and ``process``.

    For a process of its own: a peak does not go down again.
    """
    before = resident()['VmRSS']
    step = make_step()
    for _ in range(steps):
        step()
    process = resident()['VmHWM']
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else process - before
    print(json.dumps(dict(peak=peak, process=process)))


def resident() -> dict[str, float]:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    fields = (line.split() for line in Path('/proc/self/status').read_text().splitlines())
    return {key.rstrip(':'): int(values[0]) / 1024 for key, *values in fields if key in ('VmRSS:', 'VmHWM:')}
