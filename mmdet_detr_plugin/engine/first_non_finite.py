"""Which tensor of a training step is the first that is not finite, in the order in which data flow.

Input images and objects, then weights, then the outputs of modules, then losses, then gradients. Model-independent.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

FIELDS = {'inputs': 'pixels', 'data_samples.gt_instances.bboxes': 'ground-truth boxes'}  # in words


def find_first(model: BaseModel, batch: object, optim_wrapper: OptimWrapper) -> tuple[str | None, dict[str, float]]:
    """Repeat a step without an update.

    Random generators and buffers must be as they were when the step began. Weights and gradients stay as they are; running statistics of
    batch norm do not. Other processes are not asked for anything.

    Args:
        model: not wrapped, in training mode.
        batch: what the data loader gave.
        optim_wrapper: the run's, for its precision. With loss scaling, where gradients may overflow, they are not looked at.

    Returns:
        The name of the first tensor that is not finite, None where all are; and the losses, as far as they were computed.
    """
    first, losses = first_in_batch(batch) or first_in_weights(model), {}
    with _outputs_watched(model) as bad_outputs, _local(), torch.compiler.set_stance('force_eager'):
        try:
            with optim_wrapper.optim_context(model):
                data = model.data_preprocessor(batch, True)
                losses = model._run_forward(data, mode='loss')
            total, log_vars = model.parse_losses(losses)
            log_vars = {key: value.item() for key, value in log_vars.items()}
        except Exception:
            if first or bad_outputs:
                return first or bad_outputs[0], {}
            raise
    first = first or next(iter(bad_outputs), None)
    first = first or next((f'loss {key}' for key, value in log_vars.items() if 'loss' in key and not np.isfinite(value)), None)
    if first is None and not hasattr(optim_wrapper, 'loss_scaler'):
        first = _first_gradient(model, total)
    return first, log_vars


def first_in_batch(batch: object) -> str | None:
    """Which image or object of a data loader's batch is not finite."""
    metas = image_metas(batch)
    for field, index, tensor in _tensors(batch):
        if how := _not_finite(tensor):
            owner = f'of {describe_image(metas[index])}' if index is not None and index < len(metas) else f'of sample {index}'
            return f'{FIELDS.get(field, field) or "values"} {owner} ({how})'
    return None


def first_in_weights(model: nn.Module) -> str | None:
    """Which parameter or buffer is not finite. Infinity in a buffer is a fault in batch norm only: others hold it on purpose (masks)."""
    for name, parameter in model.named_parameters():
        if how := _not_finite(parameter):
            return f'parameter {name} ({how})'
    for name, buffer in model.named_buffers():
        is_norm = isinstance(model.get_submodule(name.rpartition('.')[0]), _NormBase)
        if (how := _not_finite(buffer)) and (is_norm or buffer.isnan().any()):
            return f'buffer {name} ({how})'
    return None


def weights_are_finite(model: nn.Module) -> bool:
    """As ``first_in_weights``, with one wait for the device."""
    fine = [tensor.isfinite().all() for tensor in model.parameters() if tensor.is_floating_point()]
    for module in model.modules():
        for buffer in module.buffers(recurse=False):
            if buffer.is_floating_point():
                fine.append(buffer.isfinite().all() if isinstance(module, _NormBase) else ~buffer.isnan().any())
    return not fine or bool(torch.stack(fine).all())


def image_metas(batch: object) -> list[dict]:
    """Metainfo of the data samples in a batch, in its order."""
    if isinstance(batch, BaseDataElement):
        return [batch.metainfo]
    items = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return [meta for item in items for meta in image_metas(item)]


def describe_image(meta: dict) -> str:
    """By path and id, as far as they are known."""
    return f'image {meta.get("img_path", "(path unknown)")} (img_id {meta.get("img_id", "unknown")})'


def _tensors(value: object, field: str = '', index: int | None = None) -> Iterator[tuple[str, int | None, Tensor]]:
    """Field, sample and tensor; dots between nested names."""
    if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
        value = torch.from_numpy(value)
    value = getattr(value, 'tensor', value)  # boxes
    if isinstance(value, Tensor):
        parts = enumerate(value) if index is None and value.ndim else [(index, value)]  # a stacked batch, or one sample
        yield from ((field, number, part) for number, part in parts)
    elif isinstance(value, (dict, BaseDataElement)):
        for key, item in value.items():
            yield from _tensors(item, f'{field}.{key}'.lstrip('.'), index)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _tensors(item, field, number if index is None else index)


def _not_finite(tensor: Tensor) -> str | None:
    """How many values are not finite, and where the first is."""
    if not tensor.is_floating_point():
        return None
    bad = ~torch.isfinite(tensor.detach())
    if not bad.any():
        return None
    where = bad.nonzero()[0].tolist()
    return f'{int(bad.sum())} of {tensor.numel()} values are NaN or infinite' + (f', the first at {where}' if where else '')


@contextmanager
def _outputs_watched(model: nn.Module) -> Iterator[list[str]]:
    """Collects the modules whose outputs are not finite, in the order in which they end. Those with nothing but -inf come last: masks and
    masked scores hold it on purpose.
    """
    bad, masked = [], []
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def look(module, inputs, outputs, name=name) -> None:
                for tensor in _all_tensors(outputs):
                    if how := _not_finite(tensor):
                        is_mask = torch.equal(tensor.isfinite(), tensor != -torch.inf)
                        (masked if is_mask else bad).append(f'output of module {name or "(the model)"}, {type(module).__name__} ({how})')

            stack.callback(module.register_forward_hook(look).remove)
        try:
            yield bad
        finally:
            bad += masked


def _all_tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _all_tensors(item)
    elif hasattr(value, '__dict__') and not isinstance(value, (nn.Module, BaseDataElement, type)):
        yield from _all_tensors(vars(value))  # dataclasses and the like


@contextmanager
def _local() -> Iterator[None]:
    """Averages over processes are left out: the others may be elsewhere, or have ended."""
    with patch.object(torch.distributed, 'is_initialized', return_value=False):
        yield


def _first_gradient(model: nn.Module, total: Tensor) -> str | None:
    """The parameter whose gradient is not finite and is computed first."""
    found = []
    with ExitStack() as stack:
        parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        for name, parameter in parameters:

            def look(gradient, name=name) -> None:
                if how := _not_finite(gradient):
                    found.append(f'gradient of parameter {name} ({how})')

            stack.callback(parameter.register_hook(look).remove)
        # not backward(): gradients would be added to those that are there, and DistributedDataParallel would exchange them
        torch.autograd.grad(total, [parameter for _, parameter in parameters], allow_unused=True)
    return next(iter(found), None)
