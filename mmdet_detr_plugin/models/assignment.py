"""Assignment problems by scipy, in threads where that pays."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

NUMBERS_WORTH_THREADS = 300_000  # below, starting threads costs more than it saves
NUMBERS_IN_CACHE = 300_000  # so that what one operation writes is still in the cache for the next, and for scipy

Solution = tuple[np.ndarray, np.ndarray]


class NotFiniteError(Exception):
    """A cost is NaN or infinite; ``problem`` says whose."""

    def __init__(self, problem: int) -> None:
        super().__init__(problem)
        self.problem = problem


def solve(costs: Callable[[slice], np.ndarray], counts: Sequence[int], shape: tuple[int, int], threads: int) -> list[Solution]:
    """The assignments of least cost of many problems.

    Args:
        costs: (n, T, Q) for a slice of n problems; asked for in parts.
        counts: rows of each problem; those beyond mean nothing.
        shape: (T, Q).
        threads: how many may be used. Where torch makes the costs on the host, its own threads are still waiting for more to do, and any
            others only take turns with them: 1 is best then.

    Returns:
        For each problem its matched rows, ascending, and their columns.

    Raises:
        NotFiniteError: for a problem with costs that are not finite, before scipy sees any of its part.
    """
    size = max(1, shape[0] * shape[1])
    step = max(1, NUMBERS_IN_CACHE // size)
    starts = range(0, len(counts), step)
    if threads == 1 or size * len(counts) < NUMBERS_WORTH_THREADS:
        return [solution for start in starts for solution in _solve_part(costs, counts, start, start + step)]
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda start: _solve_part(costs, counts, start, start + step), starts)
        return [solution for part in parts for solution in part]


def _solve_part(costs: Callable[[slice], np.ndarray], counts: Sequence[int], start: int, end: int) -> list[Solution]:
    part = costs(slice(start, end))
    # one pass first; infinities of both signs give NaN, large finite numbers may overflow
    if not np.isfinite(part.sum()) and not np.isfinite(part).all():
        raise NotFiniteError(start + int(np.argmax(~np.isfinite(part).all(axis=(1, 2)))))
    return _assign(part, counts[start:end])


@torch.compiler.disable  # torch 2.6 fails when it looks into scipy
def _assign(part: np.ndarray, counts: Sequence[int]) -> list[Solution]:
    return [linear_sum_assignment(cost[:count]) for cost, count in zip(part, counts, strict=True)]
