"""Between host and device, and between precisions.

The detector waits for the device once in a training step, in ``to_host``: what else it sends goes the other way, and is queued.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def never() -> bool:
    return False


# whether a graph is being exported; torch 2.6 cannot tell that from torch.compile, in which training needs its dropout, and exports nothing
is_exporting = getattr(torch.compiler, 'is_exporting', never)

# torch 2.6 cannot ask this in a graph that is captured
HAVE_AUTOCAST = frozenset(kind for kind in ('cpu', 'cuda', 'xpu', 'mps', 'hpu', 'mtia') if torch.amp.is_autocast_available(kind))


def to_host(x: Tensor) -> np.ndarray:
    """Wait for a tensor and hand it over as an array."""
    return x.cpu().numpy()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Queue a copy of a host's tensor without waiting."""
    if device.type == 'cpu':
        return x
    return x.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else x.to(device)


def integers(values: Sequence[int], device: torch.device) -> Tensor:
    """A vector of sizes on a device; while a graph is exported they may be symbols, of which ``torch.tensor`` would make constants."""
    if any(isinstance(value, torch.SymInt) for value in values):
        return torch.stack([torch.full((), value, dtype=torch.long, device=device) for value in values])
    return to_device(torch.tensor(values), device)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_autocast(x: Tensor) -> bool:
    """Whether autocast is on for a tensor's device."""
    return x.device.type in HAVE_AUTOCAST and torch.is_autocast_enabled(x.device.type)


def working_dtype(x: Tensor) -> torch.dtype:
    """What autocast computes products of this tensor in; its own type without autocast."""
    return torch.get_autocast_dtype(x.device.type) if is_autocast(x) and x.dtype != torch.float64 else x.dtype
