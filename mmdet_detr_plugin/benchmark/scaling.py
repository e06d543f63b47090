"""How time and memory grow with batch size, image side, queries and objects: a plot, and the exponent of each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from . import peers
from .rows import PLUGIN_HEAD, R50
from .timing import interleaved, median, working_memory
from .workloads import LossWork, predictor, random_batch

AXES = {
    'batch size': (1, 2, 4, 8),
    'image side': (512, 640, 800, 1066, 1333),
    'queries': (100, 300, 600, 900),
    'objects': (1, 10, 30, 100, 300),
}


@dataclass
class Growth:
    """What was measured along one axis."""

    axis: str
    work: str
    sizes: list[int]
    milliseconds: list[float]
    mebibytes: list[float]

    def exponents(self) -> tuple[float, float]:
        """Of time and memory: the slope of a straight line through the logarithms of the larger sizes, where constant parts matter less."""
        start = len(self.sizes) // 2 - (len(self.sizes) % 2 == 0)
        return tuple(_slope(self.sizes[start:], values[start:]) for values in (self.milliseconds, self.mebibytes))

    def as_dict(self) -> dict:
        time, memory = self.exponents()
        return {**self.__dict__, 'exponent': dict(time=time, memory=memory)}


def _slope(x: list[float], y: list[float]) -> float:
    log_x, log_y = [math.log(value) for value in x], [math.log(max(value, 1e-9)) for value in y]
    mean_x, mean_y = sum(log_x) / len(log_x), sum(log_y) / len(log_y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(log_x, log_y, strict=True)) / sum((a - mean_x) ** 2 for a in log_x)


def measure(device: str, rounds: int) -> list[Growth]:
    """Inference of R50 along the first three axes; matching + losses + backward of 6 x 2 x 300 predictions along the last."""
    model = peers.build(peers.model_config(R50), device)
    growths = []
    for axis, make in (
        ('batch size', lambda size: predictor(model, *random_batch(size, 512, 640, 0, device))),
        ('image side', lambda size: predictor(model, *random_batch(1, size, size, 0, device))),
        ('queries', lambda size: predictor(_with_queries(model, size), *random_batch(1, 512, 640, 0, device))),
        ('objects', lambda size: LossWork((6, 2, 300), size, device).of_head(PLUGIN_HEAD)),
    ):
        work = 'matching + losses + backward, 6 x 2 x 300 queries' if axis == 'objects' else 'inference, R50, 512 x 640'
        growths.append(_along(axis, work.replace('512 x 640', 'square') if axis == 'image side' else work, make, device, rounds))
    return growths


def _with_queries(model: torch.nn.Module, number: int) -> torch.nn.Module:
    neck = model.neck
    neck.query_embed = torch.nn.Embedding(number, neck.embed_dims, device=neck.query_embed.weight.device)
    neck.num_queries = number
    return model


def _along(axis: str, work: str, make: Callable[[int], Callable], device: str, rounds: int) -> Growth:
    times, memory = [], []
    for size in AXES[axis]:
        function = make(size)
        function()
        memory.append(working_memory(function, device))
        times.append(1000 * median(interleaved(dict(plugin=function), rounds, warmup=0)['plugin']))
    return Growth(axis, work, list(AXES[axis]), times, memory)


def text(growths: list[Growth]) -> str:
    lines = ['| grows with | work | time | memory | at each size |', '|---|---|---|---|---|']
    for growth in growths:
        time, memory = growth.exponents()
        points = ', '.join(
            f'{size}: {ms:.0f} ms {mib:.0f} MiB' for size, ms, mib in zip(growth.sizes, growth.milliseconds, growth.mebibytes, strict=True)
        )
        lines.append(f'| {growth.axis} | {growth.work} | ^{time:.2f} | ^{memory:.2f} | {points} |')
    return '\n'.join(lines)


def plot(growths: list[Growth], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(growths), 6), layout='constrained')
    for column, growth in enumerate(growths):
        for row, (values, unit, exponent) in enumerate(
            zip((growth.milliseconds, growth.mebibytes), ('time, ms', 'memory, MiB'), growth.exponents(), strict=True)
        ):
            axes = figure.add_subplot(2, len(growths), 1 + column + row * len(growths))
            axes.loglog(growth.sizes, values, 'o-')
            axes.set(xlabel=growth.axis, ylabel=unit, title=f'{growth.work if row == 0 else ""}\nexponent {exponent:.2f}')
            axes.title.set_fontsize(8)
            axes.grid(alpha=0.3)
    figure.savefig(path)
