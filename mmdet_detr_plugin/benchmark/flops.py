"""Multiply-adds of a model, attention included."""

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def giga_multiply_adds(function: Callable[[], object]) -> float:
    """10^9 multiply-adds of one call, as the paper counts ("GFLOPs" in its table 1).

    torch counts nothing for the fused attention of CPUs, so attention is made to run as matrix products here. Operations of mmcv (RoI
    align, NMS) and elementwise ones are not counted.
    """
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        function()
    return counter.get_total_flops() / 2 / 1e9
