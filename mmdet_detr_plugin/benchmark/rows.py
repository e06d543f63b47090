"""The rows of the benchmark's table. Each returns one ``Row``.

Checked before anything is timed: losses and gradients of all in the loss rows; boxes (mmdet) and scores (HF) in fp32 in the inference
rows; scores of the exported file and mmdet in the ONNX row; gradients in fp32 in the training rows.
On GPUs the checks run without TF32, the timings with torch's defaults.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..config_files import config_path
from ..models import onednn
from . import peers
from .results import Row
from .timing import full_float32, interleaved
from .workloads import NUM_CLASSES, LossWork, predictor, random_batch, training_step

R50 = 'detr_r50_8xb2-150e_coco'
HAS_ONNX = all(importlib.util.find_spec(name) for name in ('onnx', 'onnxscript', 'onnxruntime'))
PLUGIN_HEAD = dict(type='mmdet_detr_plugin.DETRHead', num_classes=NUM_CLASSES)
MMDET_HEAD = peers.mmdet_head_config(NUM_CLASSES) | dict(train_cfg=peers.MMDET_TRAIN_CFG)


def milliseconds(functions: dict[str, Callable], rounds: int, **kwargs) -> dict[str, list[float]]:
    return {name: [1000 * second for second in times] for name, times in interleaved(functions, rounds, **kwargs).items()}


def loss_row(
    name: str, shape: tuple[int, int, int], num_objects: int, target: dict, device: str, rounds: int, official: Path | None
) -> Row:
    """Matching + losses + backward."""
    layers, images, queries = shape
    row = Row(name, f'matching + losses + backward, {layers} x {images} x {queries} queries x {num_objects} objects', target=target)
    work = LossWork(shape, num_objects, device)
    functions = dict(plugin=work.of_head(PLUGIN_HEAD), mmdet=work.of_head(MMDET_HEAD))
    if official:
        functions['official'] = work.of_official(peers.official_criterion(official, NUM_CLASSES))
    if peers.HAS_HF:
        functions['HF'] = work.of_hf()
    expected = work.gradients(functions['plugin'])
    for other in functions:
        differences = [_relative(a, b) for a, b in zip(work.gradients(functions[other]), expected, strict=True)]
        difference = float(torch.tensor(differences).max())  # keeps NaN
        if not difference <= 1e-3:
            raise AssertionError(f'{name}: loss or gradients of {other} differ from the plugin by {difference:.1e} of their largest value')
    row.notes.append("loss and gradients of all are equal within 1e-3; HF's also counts wrong numbers of objects, which cannot be left out")
    row.values = milliseconds(functions, max(10, 3 * rounds), warmup=2, repeat=3)
    return row


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def inference_row(device: str, rounds: int, name: str = 'inference', size: tuple[int, int] = (800, 1066), bf16: bool = False) -> Row:
    """Detections of one image."""
    target = {'mmdet': 0.5 if device == 'cuda' else 0.4 if bf16 else 0.65}
    kind = 'bf16 (mmdet fp32)' if bf16 else 'fp32'
    row = Row(name, f'inference, R50, 1 x 3 x {size[0]} x {size[1]}, {kind}', target=target)
    if bf16 and not has_bf16(device):
        row.notes.append('not measured: no bf16 arithmetic on this device')
        return row
    models = peers.equal_detrs(R50, device)
    images, samples = random_batch(1, *size, 0, device)
    functions = {model: predictor(module, images, samples) for model, module in models.items()}
    with full_float32():
        difference = _detection_difference(functions, size)
    if not difference <= 1e-3:
        raise AssertionError(f'{name}: boxes of the plugin and mmdet, or scores of the plugin and HF, differ by {difference:.1e}')
    row.notes.append(f'fp32 detections of all differ by {difference:.1e} at most (boxes normalised)')
    if bf16:
        functions['mmdet bf16'] = _autocast(functions['mmdet'], device)
        functions['plugin'] = _autocast(functions['plugin'], device)
        functions.pop('HF', None)
    row.values = milliseconds(functions, rounds)
    return row


def _detection_difference(functions: dict[str, Callable], size: tuple[int, int]) -> float:
    """The largest of normalised boxes (plugin, mmdet) and scores (plugin, HF)."""
    ours, theirs = (torch.stack([sample.pred_instances.bboxes for sample in functions[name]()]) for name in ('plugin', 'mmdet'))
    differences = [((ours - theirs) / ours.new_tensor([size[1], size[0]] * 2)).abs().max()]
    if 'HF' in functions:
        scores = torch.stack([sample.pred_instances.scores for sample in functions['plugin']()])
        differences.append((scores - functions['HF']()[0].values.sort(descending=True).values).abs().max())
    return float(torch.stack(differences).max())  # keeps NaN


def onnx_row(device: str, rounds: int, size: tuple[int, int] = (800, 1066)) -> Row:
    """Detections of one image by onnxruntime from the exported file, on the CPU, against detectors in PyTorch."""
    row = Row('onnx', f'inference, R50, 1 x 3 x {size[0]} x {size[1]}, exported to ONNX, CPU', target={'mmdet': 0.55})
    if not HAS_ONNX:
        row.notes.append("not measured: needs pip install 'mmdet_detr_plugin[onnx]'")
        return row
    from ..deployment.export import export_onnx  # what is measured without ONNX does not need it
    from ..deployment.runtime import OnnxDetector

    models = peers.equal_detrs(R50, 'cpu', hf=False)
    images, samples = random_batch(1, *size, 0, 'cpu')
    functions = {
        f'{model} (PyTorch)' if model == 'plugin' else model: predictor(module, images, samples) for model, module in models.items()
    }
    models['plugin'].dataset_meta = dict(classes=[str(label) for label in range(NUM_CLASSES)])
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(Config.fromfile(config_path(R50)), models['plugin'].eval(), Path(folder) / 'r50.onnx', simplify=True)
        exported = OnnxDetector(Path(folder) / 'r50.onnx', num_threads=torch.get_num_threads())
    inputs = images.numpy(), np.array([size])
    functions['plugin'] = lambda: exported.forward(*inputs)
    wanted = torch.stack([sample.pred_instances.scores for sample in functions['mmdet']()])
    difference = float((torch.from_numpy(functions['plugin']()[1]).sort(descending=True).values - wanted).abs().max())
    if not difference <= 1e-3:
        raise AssertionError(f'onnx: scores of the exported file and mmdet differ by {difference:.1e}')
    row.notes.append(f'fp32 scores of the exported file and mmdet differ by {difference:.1e} at most')
    row.values = milliseconds(functions, rounds)
    return row


def _autocast(function: Callable, device: str) -> Callable:
    def run() -> object:
        with torch.autocast(device, dtype=torch.bfloat16):
            return function()

    return run


def has_bf16(device: str) -> bool:
    if device == 'cuda':
        return torch.cuda.is_bf16_supported()
    return onednn.HAS_BF16


def training_row(device: str, rounds: int, bf16: bool = False, compiled: bool = False) -> Row:
    """A training step of two images; ``compiled``: with ``model.compile_transformer``, beside the plugin without it."""
    target = {'mmdet': 0.67 if device == 'cuda' else 0.75}
    precision = 'bf16' if bf16 else 'fp32'
    name = 'training' + '-bf16' * bf16 + '-compiled' * compiled
    row = Row(name, f'training step, R50, 2 x 3 x 512 x 640, {precision}{", torch.compile" * compiled}', target=target)
    if bf16 and not has_bf16(device):
        row.notes.append('not measured: no bf16 arithmetic on this device')
        return row
    images, samples = random_batch(2, 512, 640, 7, device)
    with full_float32():
        difference = _gradient_difference(images, samples, device)
    if not difference <= 1e-3:
        raise AssertionError(f'training: gradients of the plugin and mmdet differ by {difference:.1e} of their norm')
    row.notes.append(f'fp32 gradients of plugin and mmdet differ by {difference:.1e} of their norm at most (dropout off)')
    amp = dict(type='mmdet_detr_plugin.BFloat16OptimWrapper') if bf16 else None
    models = peers.equal_detrs(R50, device, hf=False)
    if compiled:
        eager = peers.build(peers.model_config(R50), device)
        models['plugin'].compile_parts()
        models = dict(plugin=models['plugin'], eager=eager, mmdet=models['mmdet'])
    steps = {name: training_step(model, images, samples, amp) for name, model in models.items()}
    # a compiled step compiles in its first call, and may do so again in the next
    row.values = milliseconds(steps, rounds, warmup=3 if compiled else 1)
    return row


def _gradient_difference(images: torch.Tensor, samples: list, device: str) -> float:
    """The largest, over all parameters, of ||ours - theirs|| / ||theirs||."""
    gradients = {}
    for name, model in peers.equal_detrs(R50, device, hf=False, dropout=0.0).items():
        model.train()
        model.parse_losses(model.loss(images, samples))[0].backward()
        state = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
        gradients[name] = state if name == 'mmdet' else peers.to_other_names(state, peers.FORMATS['mmdet', ''], {})
    return largest_difference(gradients['plugin'], gradients['mmdet'])


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest, over all gradients, of ||ours - theirs|| / ||theirs||."""
    if ours.keys() != theirs.keys():
        raise AssertionError(f'training: other parameters have gradients: {sorted(ours.keys() ^ theirs.keys())[:5]}')
    norm = max(float(gradient.norm()) for gradient in theirs.values())
    differences = [float((ours[key] - theirs[key]).norm()) / max(float(theirs[key].norm()), 1e-4 * norm) for key in theirs]
    return float(torch.tensor(differences).max())  # keeps NaN


def memory_row(device: str) -> Row:
    """Peak memory of that training step, each model in a process of its own."""
    row = Row('memory', 'peak memory of that training step, weights included', 'MiB', target={'mmdet': 0.8})
    for name in ('plugin', 'mmdet'):
        found = in_own_process('training_memory', name, device)
        row.values[name] = [found['peak']]
        row.notes.append(f'{name}: whole process {found["process"]:.0f} MiB')
    return row


def in_own_process(module: str, name: str, device: str, *args: str) -> dict:
    """What a module of this package prints as JSON."""
    command = [sys.executable, '-W', 'ignore', '-m', f'mmdet_detr_plugin.benchmark.{module}', name, device, *args]
    environment = {**os.environ, **({'CUDA_VISIBLE_DEVICES': ''} if device == 'cpu' else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def epoch_row(device: str, rounds: int) -> Row:
    """Training epochs of the shapes demo by mmengine's runner, in turns."""
    row = Row('epoch', 'training epoch of the shapes demo, end to end', 's', dict(plugin=[], mmdet=[]), {'mmdet': 0.75})
    for _ in range(max(1, rounds // 3)):
        for name, values in row.values.items():
            values.append(in_own_process('demo_epoch', name, device)['seconds'])
    return row


def speed_row(name: str, device: str, rounds: int, size: tuple[int, int] = (800, 1066)) -> Row:
    """Latency, parameters and GFLOPs of a shipped config, for the paper's table 1."""
    from .flops import giga_multiply_adds

    row = Row('table1', f'inference, {name}, 1 x 3 x {size[0]} x {size[1]}')
    model = peers.build(peers.model_config(name), device)
    images, samples = random_batch(1, *size, 0, device)
    predict = predictor(model, images, samples)
    row.values = milliseconds(dict(plugin=predict), rounds)
    row.notes.append(
        f'{name}: {sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters, '
        f'{giga_multiply_adds(predict):.0f} G multiply-adds'
    )
    return row
