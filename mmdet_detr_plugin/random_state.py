"""The global random generators of Python, NumPy and torch, seeded and kept together."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(seed: int, *key: int, accelerators: bool = False) -> None:
    """Seed Python's, NumPy's and torch's global generators from ``seed`` and a key.

    Different keys give independent streams, also keys that differ in one number by one (NumPy's ``SeedSequence``). torch's CPU generator
    takes 32 bits of it, so that among many thousand streams two can be equal there.

    Args:
        seed: the run's seed, at least 0.
        key: what the stream is for, numbers of at least 0.
        accelerators: seed torch's generators on GPUs too.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(8)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:6])
    torch_seed = int(words[6:].view(np.uint64)[0])
    if accelerators:
        torch.manual_seed(torch_seed)
    else:
        torch.default_generator.manual_seed(torch_seed)


def generators_state(accelerators: bool = False) -> dict:
    """The states of Python's, NumPy's and torch's global generators.

    Args:
        accelerators: also the current GPU's, where one is in use. Not in a loader's workers, which may not touch it.
    """
    device = {'cuda': torch.cuda.get_rng_state()} if accelerators and torch.cuda.is_initialized() else {}
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), **device)


def set_generators_state(state: dict) -> None:
    """Go on from what ``generators_state`` returned; a GPU's state is left out where there is none."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Whatever happens inside, the three generators (torch's on the CPU) go on afterwards as if nothing had been drawn."""
    state = generators_state()
    try:
        yield
    finally:
        set_generators_state(state)
