"""Ways of training in which a NaN shows elsewhere: loss scaling, accumulation, loops of iterations, several processes; and the cost."""

import os
import re
import warnings
from pathlib import Path

import pytest
import torch
from mmdet.utils import reduce_mean
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_detr_plugin.engine import failed_step
from mmdet_detr_plugin.engine.cpu_runner import CPURunner
from mmdet_detr_plugin.engine.failed_step import replay
from mmdet_detr_plugin.engine.first_non_finite import find_first

from .planted_faults import NAN, NanBackward
from .tiny_training import TinyModel, tiny_runner

HOOKS = [dict(type='mmdet_detr_plugin.NonFiniteHook'), dict(type='mmdet_detr_plugin.PlainCheckpointHook'), dict(type='EMAHook')]
SEEDED = [*HOOKS, dict(type='mmdet_detr_plugin.EpochSeedHook')]


class At(Hook):
    """Calls ``act`` before, or after, one iteration, and keeps the weights from before it."""

    priority = 'LOW'  # before the checkpoint

    def __init__(self, iteration: int, act, after: bool = False) -> None:
        self.iteration, self.act, self.after = iteration, act, after

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if runner.iter == self.iteration:
            self.before = {name: value.clone() for name, value in runner.model.state_dict().items()}
            if not self.after:
                self.act(getattr(runner.model, 'module', runner.model))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if runner.iter == self.iteration and self.after:
            self.act(runner.model)


def spoil_gradient(value: float):
    return lambda model: model.linear.register_forward_hook(lambda module, inputs, output: NanBackward.apply(output, value))


def spoil_once(value: float):
    def act(model) -> None:
        def spoil(module, inputs, output):
            handle.remove()
            return NanBackward.apply(output, value)

        handle = model.linear.register_forward_hook(spoil)

    return act


def spoil_output(model) -> None:
    model.linear.register_forward_hook(lambda module, inputs, output: output * NAN)


def stopped(runner, plant: Hook) -> str:
    runner.register_hook(plant)
    with pytest.raises(FloatingPointError) as raised:
        runner.train()
    return str(raised.value)


def assert_weights_as_before(runner, plant: At) -> None:
    assert all(torch.equal(value, plant.before[name]) for name, value in runner.model.state_dict().items())


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(OptimWrapper):
    """What mmengine's AmpOptimWrapper does, which refuses CPUs."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs) -> None:
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def scaled(fused: bool = False, **clip) -> dict:
    return dict(type='ScaledOptimWrapper', optimizer=dict(type='AdamW', lr=0.1, fused=fused), **clip)


@pytest.mark.parametrize(
    'options', [{}, dict(clip_grad=dict(max_norm=1.0)), dict(fused=True)], ids=['unclipped', 'clipped', 'scaler asks the optimiser']
)
def test_gradients_that_overflow_under_loss_scaling_are_left_to_the_scaler(options, tmp_path):
    runner = tiny_runner(tmp_path, epochs=2, custom_hooks=SEEDED, optim_wrapper=scaled(**options))
    runner.register_hook(At(3, spoil_once(float('inf'))))
    runner.train()
    assert runner.iter == 6 and runner.optim_wrapper.loss_scaler.get_scale() == 4.0
    assert all(value.isfinite().all() for value in runner.model.parameters())


def test_loss_that_is_not_finite_under_loss_scaling_stops(tmp_path):
    runner = tiny_runner(tmp_path, epochs=2, custom_hooks=SEEDED, optim_wrapper=scaled())
    message = stopped(runner, plant := At(3, spoil_output))
    assert 'output of module linear, Linear' in message and 'epoch 2, iteration 1 of 3 (4 of the run)' in message
    assert 'The update was not made' in message
    assert_weights_as_before(runner, plant)


@pytest.mark.parametrize('iteration', [2, 3], ids=['first of the two', 'second'])
def test_accumulated_gradients_are_looked_at_while_their_batch_can_be_named(iteration, tmp_path):
    accumulated = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=2)
    runner = tiny_runner(tmp_path, custom_hooks=SEEDED, optim_wrapper=accumulated)
    message = stopped(runner, plant := At(iteration, spoil_gradient(NAN)))
    assert 'gradient of parameter linear.' in message and f'({iteration + 1} of the run)' in message
    assert_weights_as_before(runner, plant)
    model = TinyModel()
    spoil_gradient(NAN)(model)
    assert replay(next(tmp_path.glob('non_finite*.pth')), model) in message


def test_no_checkpoint_is_written_of_a_weight_that_is_not_finite(tmp_path):
    """In a loop of iterations, where no epoch ends; the weight breaks after the step's own check."""

    def spoil(model) -> None:
        model.linear.bias.data.fill_(NAN)

    loop = dict(train_cfg=dict(by_epoch=False, max_iters=6), val_cfg=None, val_dataloader=None, val_evaluator=None)
    checkpoint = dict(by_epoch=False, interval=2, save_best=None, save_last=False)
    runner = tiny_runner(tmp_path, custom_hooks=HOOKS, checkpoint=checkpoint, param_scheduler=None, **loop)
    message = stopped(runner, At(3, spoil, after=True))
    assert 'parameter linear.bias' in message and 'seen after the step' in message and 'The update had been made' in message
    assert [path.name for path in tmp_path.glob('iter_*.pth')] == ['iter_2.pth']


def test_weights_are_looked_at_at_the_end_of_an_epoch(tmp_path):
    """Before validation, whether or not a checkpoint is written."""
    runner = tiny_runner(tmp_path, custom_hooks=SEEDED, checkpoint=dict(interval=10, save_best=None, save_last=False))
    message = stopped(runner, At(2, lambda model: model.linear.bias.data.fill_(NAN), after=True))
    assert 'parameter linear.bias' in message and 'seen after the step' in message and 'iteration 3 of 3 (3 of the run)' in message


@pytest.mark.parametrize('is_repeated', [False, True])
def test_exceptions_of_other_kinds_stay_what_they_are(is_repeated, tmp_path):
    def break_code(model) -> None:
        def fail(module, inputs, output):
            if not is_repeated:
                handle.remove()
            raise IndexError('a bug of its own')

        handle = model.linear.register_forward_hook(fail)

    runner = tiny_runner(tmp_path, custom_hooks=SEEDED)
    runner.register_hook(At(3, break_code))
    with pytest.raises(IndexError, match='a bug of its own'):
        runner.train()
    assert not list(tmp_path.glob('non_finite*'))


def test_the_repeated_step_asks_nothing_of_other_processes(monkeypatch):
    """They may be elsewhere: one process alone can have the fault."""

    class Averaging(TinyModel):
        def forward(self, *inputs: torch.Tensor, mode: str):
            return {name: reduce_mean(loss) for name, loss in super().forward(*inputs, mode=mode).items()}

    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda group=None: 2)
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda *args, **kwargs: pytest.fail('waits for another process'))
    model = Averaging()
    spoil_output(model)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    assert find_first(model, [torch.rand(3), torch.rand(3)], wrapper)[0].startswith('output of module linear')


def test_a_full_disk_hides_nothing(tmp_path, monkeypatch):
    def full(content: bytes, path) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(failed_step, 'write_atomically', full)
    message = stopped(tiny_runner(tmp_path, custom_hooks=SEEDED), At(3, spoil_output))
    assert 'output of module linear' in message and 'could not be saved' in message and 'No space left' in message


class WaitCounter(TorchDispatchMode):
    """Counts values that are read from tensors, each of which waits on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('clip, extra', [(dict(clip_grad=dict(max_norm=1.0)), 0), ({}, 1)], ids=['clipped', 'unclipped'])
def test_waits_of_a_step(clip, extra, tmp_path):
    """None with clipping, else one; and one for the weights at the end of an epoch and in a checkpoint. The result is the same."""
    counts, ends = [], []
    for hooks in (SEEDED[1:], SEEDED):
        work_dir = tmp_path / str(len(counts))
        wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), **clip)
        runner = tiny_runner(work_dir, epochs=2, custom_hooks=hooks, optim_wrapper=wrapper, checkpoint=dict(save_best=None))
        saved = []
        runner.register_hook(At(-1, None))
        runner.hooks[-1].before_save_checkpoint = lambda runner, checkpoint, saved=saved: saved.append(runner.iter)
        with WaitCounter() as waits:
            runner.train()
        counts.append(waits.count)
        ends.append(runner.model.state_dict())
    assert counts[1] - counts[0] == extra * 6 + 2 + len(saved)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


PLANTED = dict(output=spoil_output, gradient=spoil_gradient(NAN))


def train_rank(rank: int, folder: str) -> None:
    """One training for each fault, which rank 1 has."""
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)  # as a launcher does
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    for name, act in PLANTED.items():
        runner = tiny_runner(f'{folder}/{name}', custom_hooks=SEEDED, launcher='pytorch', kind=CPURunner)
        runner.register_hook(At(2, act if rank == 1 else lambda model: None))
        try:
            runner.train()
            message = 'trained to the end'
        except Exception as error:
            message = f'{type(error).__name__}: {error}'
        Path(f'{folder}/{name}_{rank}').write_text(message)
    torch.distributed.barrier()  # a rank that leaves while the other still talks to it can be aborted by gloo's threads
    torch.distributed.destroy_process_group()


def test_all_processes_stop_and_the_reason_is_that_of_the_one_that_has_it(tmp_path):
    multiprocessing.spawn(train_rank, (str(tmp_path),), nprocs=2)
    for name, named in dict(output='output of module linear', gradient='gradient of parameter linear.').items():
        other, faulty = ((tmp_path / f'{name}_{rank}').read_text() for rank in range(2))
        assert 'FloatingPointError: Training stopped' in faulty and f'First bad tensor: {named}' in faulty and 'rank 1' in faulty, faulty
        assert re.match(rf'FloatingPointError: Training stopped in epoch 2, iteration 3: rank 1 reports {named}', other), other
        assert [path.name for path in (tmp_path / name).glob('non_finite*')] == ['non_finite_epoch_2_iter_3_rank_1.pth']
