"""Latency, multiply-adds and parameters of the models of a comparison: the same images, one after another, in turns, in one process."""

import statistics
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..benchmark.flops import giga_multiply_adds
from ..benchmark.results import machine
from ..benchmark.timing import synchronize
from ..prediction.trained_model import load_model
from .inference import ordered_loader

NUM_IMAGES = 30


def measure(models: Mapping[str, tuple[Config, Path | None]], num_images: int = NUM_IMAGES) -> dict[str, dict]:
    """What table 1 of the paper says of every model, by its name.

    Every image is one batch, already decoded and resized; timed are normalisation, padding, network and post-processing. Each model sees
    each image once, after ten that do not count; the order of the models alternates.

    Args:
        models: resolved config and checkpoint (None: random weights) of each.

    Returns:
        ``parameters`` (without training aids), ``giga_multiply_adds`` (mean over images; see ``giga_multiply_adds`` for what is counted)
        and ``latency``: ``p50_ms, p95_ms, fps`` (1000 / mean), ``rounds``, ``input`` (median height and width), ``device``.
    """
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    networks = {name: load_model(cfg, checkpoint, device) for name, (cfg, checkpoint) in models.items()}
    batches = {name: list(islice(ordered_loader(cfg.test_dataloader, 1), num_images)) for name, (cfg, _) in models.items()}
    count = min(map(len, batches.values()))
    times = {name: [] for name in models}

    def run(name: str, index: int) -> float:
        batch = batches[name][index]
        copied = dict(inputs=list(batch['inputs']), data_samples=[sample.clone() for sample in batch['data_samples']])
        synchronize()
        start = time.perf_counter()
        networks[name].test_step(copied)
        synchronize()
        return 1000 * (time.perf_counter() - start)

    with torch.no_grad():
        for index in range(min(10, count)):
            for name in models:
                run(name, index)
        for index in range(count):
            for name in list(models)[:: 1 if index % 2 else -1]:
                times[name].append(run(name, index))
        operations = {
            name: statistics.mean(giga_multiply_adds(lambda index=index, name=name: run(name, index)) for index in range(min(3, count)))
            for name in models
        }
    facts = {}
    for name, network in networks.items():
        sizes = [batch['inputs'][0].shape[-2:] for batch in batches[name][:count]]
        p50, p95 = np.percentile(times[name], [50, 95])
        facts[name] = dict(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            giga_multiply_adds=operations[name],
            latency=dict(
                p50_ms=float(p50),
                p95_ms=float(p95),
                fps=1000 / statistics.mean(times[name]),
                rounds=count,
                input=[int(statistics.median(size[axis] for size in sizes)) for axis in (0, 1)],
                device=machine(device)['device'],
            ),
        )
    return facts
