"""Training stops at the first NaN or infinity, says where it came from, and keeps what is needed to look into it."""

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..random_state import generators_state, preserved_generators, set_generators_state
from ..registry import HOOKS
from .failed_step import save_step
from .first_non_finite import describe_image, find_first, first_in_weights, image_metas, weights_are_finite


class NotFiniteError(ArithmeticError):
    """Before an update: a loss or gradient is not finite. ``is_everywhere``: in all processes, because gradients have been averaged."""

    def __init__(self, what: str, is_everywhere: bool) -> None:
        super().__init__(what)
        self.is_everywhere = is_everywhere


@dataclass
class Step:
    """What a step started from.

    Attributes:
        epoch: from 1.
        iter: of the run, from 1.
        batch: as the data loader gave it.
        generators: states of the random generators.
        has_updated: whether weights have changed since.
    """

    epoch: int
    iter: int
    batch: object
    generators: dict
    has_updated: bool = False


class BufferCopies:
    """Copies of a model's buffers; of modules in evaluation mode, such as frozen batch norm, only what has changed is copied again."""

    def __init__(self, model: nn.Module) -> None:
        self.places = [(module, name) for module in model.modules() for name in module._buffers]
        self.copies: list[Tensor | None] = [None] * len(self.places)
        self.versions: list = [None] * len(self.places)

    @torch.no_grad()
    def take(self) -> None:
        pairs = {}
        for index, (module, name) in enumerate(self.places):
            buffer = module._buffers[name]
            # batch norm in training does not count as a new version
            if buffer is None or (not module.training and self.versions[index] == (id(buffer), buffer._version)):
                continue
            self.versions[index] = (id(buffer), buffer._version)
            if self.copies[index] is None or self.copies[index].shape != buffer.shape:
                self.copies[index] = buffer.detach().clone()
            else:
                pairs.setdefault((buffer.dtype, buffer.device), []).append((self.copies[index], buffer))
        for group in pairs.values():
            torch._foreach_copy_(*map(list, zip(*group, strict=True)))  # one operation for each type

    @torch.no_grad()
    def restore(self) -> None:
        for (module, name), copy in zip(self.places, self.copies, strict=True):
            if copy is not None:
                module._buffers[name].copy_(copy)


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops training when a loss or gradient is NaN or infinite, before the update, and at the end of an epoch when a weight is.

    The step is repeated to name the first bad tensor: an image or an object of the batch, a parameter or buffer, else the first output of a
    module, else a loss, else the gradient of a parameter. What the step started from is saved in ``work_dir`` (``failed_step.py`` reads
    and replays it). Weights, optimiser, averaged model and checkpoints stay as they were before the step.

    Cost: where gradients are clipped by norm (``optim_wrapper.clip_grad``), no further wait for a device; else one in each step. Gradients
    that overflow under loss scaling (``AmpOptimWrapper``) are that method's own business: its scaler leaves such updates out.

    Any model of mmengine, in one process or in several with ``DistributedDataParallel``. Losses are read from mmengine's log
    (``RuntimeInfoHook``, on by default).

    Raises:
        FloatingPointError: in training, with tensor, epoch, iteration, images and the saved file.
    """

    priority = 'HIGH'  # after the log has taken the losses, before the averaged model takes the weights

    def before_train(self, runner) -> None:
        if hasattr(self, '_clean_up'):  # of a training that was stopped
            self._clean_up.close()
        self._is_on = not is_model_wrapper(runner.model) or isinstance(runner.model, DistributedDataParallel)
        if not self._is_on:
            runner.logger.warning(f'NonFiniteHook does not look into {type(runner.model).__name__}: NaN will not stop training.')
            return
        self._model = getattr(runner.model, 'module', runner.model)
        self._buffers, self._step, self._loss = BufferCopies(self._model), None, torch.zeros(())
        self._is_logged = any(isinstance(hook, RuntimeInfoHook) for hook in runner.hooks)
        wrappers = runner.optim_wrapper
        self._wrappers = list(wrappers.values()) if hasattr(wrappers, 'values') else [wrappers]
        self._clean_up, self._is_clipped = ExitStack(), {}
        for wrapper in self._wrappers:
            self._watch(wrapper)
        self._guard(runner)

    def after_train(self, runner) -> None:
        if self._is_on:
            self._clean_up.close()
            self._step = None

    def _guard(self, runner) -> None:
        """Training steps go through ``_guarded`` from now on, compiled ones too."""
        train_step = runner.model.train_step

        def guarded(data, *args, **kwargs):
            return self._guarded(runner, train_step, data, *args, **kwargs)

        replaced = vars(runner.model).get('train_step')  # of a compiled model
        runner.model.train_step = guarded
        if replaced is None:
            self._clean_up.callback(delattr, runner.model, 'train_step')
        else:
            self._clean_up.callback(setattr, runner.model, 'train_step', replaced)

    def _guarded(self, runner, train_step, batch, *args, **kwargs):
        self._step = Step(runner.epoch + 1, runner.iter + 1, batch, generators_state(accelerators=True))
        self._buffers.take()
        try:
            return train_step(batch, *args, **kwargs)
        except NotFiniteError as error:
            self._stop(runner, str(error), is_everywhere=error.is_everywhere, cause=error)
        except torch.OutOfMemoryError:
            raise
        except FloatingPointError as error:
            self._stop(runner, str(error), cause=error)
        except Exception as error:  # NaN breaks other code too, in many ways; only if nothing else is found it is not our business
            try:
                found = self._find(runner)
            except Exception:
                raise error from None
            if found[0] is None:
                raise
            self._stop(runner, str(error), found, cause=error)

    def _watch(self, wrapper: OptimWrapper) -> None:
        """Look at loss and gradients before an update. With clipping, mmengine copies the norm to the host; the loss travels with it."""
        update_params, clip = wrapper.update_params, getattr(wrapper, 'clip_func', None)
        self._is_clipped[id(wrapper)] = clip is torch.nn.utils.clip_grad_norm_

        def update(loss: Tensor, *args, **kwargs) -> None:
            self._loss = loss.detach()
            update_params(loss, *args, **kwargs)

        def clip_with_loss(*args, **kwargs) -> Tensor:
            return clip(*args, **kwargs) + 0 * self._loss

        @torch.compiler.disable
        def check(optimizer, args, kwargs) -> None:
            self._check_before_update(wrapper)

        wrapper.update_params = update
        self._clean_up.callback(delattr, wrapper, 'update_params')
        self._clean_up.callback(wrapper.optimizer.register_step_pre_hook(check).remove)
        if self._is_clipped[id(wrapper)]:
            wrapper.clip_func = clip_with_loss
            self._clean_up.callback(setattr, wrapper, 'clip_func', clip)

    def _check_before_update(self, wrapper: OptimWrapper) -> None:
        if self._step is None:  # a loop with steps of its own
            return
        if not hasattr(wrapper, 'loss_scaler'):  # else the scaler decides about updates
            norm = wrapper.message_hub.log_scalars.get(f'train/{wrapper.grad_name}') if self._is_clipped[id(wrapper)] else None
            if norm is None or not math.isfinite(norm.current()):
                self._look_closely(wrapper)
        self._step.has_updated = True

    def _look_closely(self, wrapper: OptimWrapper, is_averaged: bool = True) -> None:
        """Raise where the loss or a gradient is not finite; with one wait where all are."""
        gradients = [p.grad for group in wrapper.optimizer.param_groups for p in group['params'] if p.grad is not None]
        if gradients and (torch.nn.utils.get_total_norm(gradients) + 0 * self._loss).isfinite():
            return
        # a sum of squares may overflow where no gradient does
        if not all(gradient.isfinite().all() for gradient in gradients):
            raise NotFiniteError('a gradient', is_averaged and get_world_size() > 1)
        if not self._loss.isfinite():
            raise NotFiniteError('the loss', False)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if not self._is_on or self._step is None:
            return
        for key in (outputs or {}) if self._is_logged else ():
            if 'loss' in key and not math.isfinite(runner.message_hub.get_scalar(f'train/{key}').current()):
                self._stop(runner, key)
        for wrapper in self._wrappers:  # accumulated so far, while this batch can still be named
            if not self._step.has_updated and not hasattr(wrapper, 'loss_scaler'):
                try:
                    self._look_closely(wrapper, is_averaged=False)
                except NotFiniteError as error:
                    self._stop(runner, str(error), cause=error)

    def after_train_epoch(self, runner) -> None:
        self._check_weights(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        self._check_weights(runner)  # loops of iterations have no epochs

    def _check_weights(self, runner) -> None:
        if getattr(self, '_is_on', False) and self._step is not None and not weights_are_finite(self._model):
            first = first_in_weights(self._model)
            raise FloatingPointError(self._report(runner, f'{first}, seen after the step', {}))

    def _find(self, runner) -> tuple[str | None, dict]:
        """The first bad tensor in this process's step, repeated from where it started; and the losses."""
        self._buffers.restore()
        with preserved_generators():
            set_generators_state(self._step.generators)
            found = find_first(self._model, self._step.batch, self._wrappers[0])
        self._buffers.restore()
        return found

    def _stop(self, runner, seen: str, found: tuple[str | None, dict] | None = None, is_everywhere=False, cause=None) -> None:
        """Raise.

        Args:
            seen: what made training stop, in words.
            found: what ``_find`` has found already.
            is_everywhere: all processes are here, in the same step; the first that knows a reason gives it.
        """
        try:
            first, losses = found or self._find(runner)
        except Exception as error:  # nothing may hide the fault
            first, losses = f'{seen}; repeating the step failed: {type(error).__name__}: {error}', {}
        reasons = all_gather_object(first) if is_everywhere else [first]
        rank = next((number for number, reason in enumerate(reasons) if reason), None)
        if first is None and rank is not None:
            message = f'Training stopped in epoch {self._step.epoch}, iteration {self._step.iter}: rank {rank} reports {reasons[rank]}.'
            raise FloatingPointError(message) from cause
        message = self._report(runner, first or f'{seen}; it did not appear when the step was repeated', losses, seen)
        raise FloatingPointError(message) from cause

    def _report(self, runner, first: str, losses: dict, seen: str = '') -> str:
        """Save the step and put everything into words."""
        step, rank = self._step, get_rank()
        images = [{'img_id': meta.get('img_id'), 'img_path': meta.get('img_path')} for meta in image_metas(step.batch)]
        where = f'epoch {step.epoch}, iteration {step.iter}'
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            length = len(runner.train_dataloader)
            where = f'epoch {step.epoch}, iteration {step.iter - (step.epoch - 1) * length} of {length} ({step.iter} of the run)'
        lines = [f'Training stopped: NaN or infinity in {where}{f", rank {rank}" if get_world_size() > 1 else ""}.']
        lines.append(f'First bad tensor: {first}.')
        if seen and seen not in first:
            lines.append(f'It showed in: {seen}')
        lines.append(f'Images of the batch: {", ".join(map(describe_image, images)) or "no names known"}.')
        lines.append('The update had been made before it showed.' if step.has_updated else 'The update was not made.')
        suffix = f'_rank_{rank}' if get_world_size() > 1 else ''
        path = Path(runner.work_dir) / f'non_finite_epoch_{step.epoch}_iter_{step.iter}{suffix}.pth'
        try:
            content = dict(epoch=step.epoch, iter=step.iter, rank=rank, first=first, message='\n'.join(lines), images=images, losses=losses)
            content.update(state_dict=self._model.state_dict(), optimizer=runner.optim_wrapper.state_dict(), batch=step.batch)
            save_step(path, content | dict(generators=step.generators, config=_config_text(runner)))
            lines.append(f"State saved in {path}; to repeat the step: mmdet_detr_plugin.engine.failed_step.replay('{path}').")
        except Exception as error:  # such as a full disk
            lines.append(f'The state could not be saved in {path}: {type(error).__name__}: {error}.')
        lines.append('Checkpoints are untouched; --resume goes on from the last one.')
        return '\n'.join(lines)


def _config_text(runner) -> str:
    """Empty for a runner that was built without a config."""
    text = runner.cfg.pretty_text
    return text if re.search(r'^model = dict\(', text, re.M) else ''
