"""Reading weights without running what a file may carry."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

NUMBERS = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')
WEIGHT_ENTRIES = ('state_dict', 'model')  # mmengine's and facebookresearch/detr's


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint file: tensors and plain values.

    ``.safetensors`` holds tensors only; everything else is read with ``weights_only=True``. Let through are the arguments that
    facebookresearch/detr stores beside its weights (``argparse.Namespace``), numpy's arrays, and the logged values of mmengine, whose
    checkpoints torch 2.6 and later refuse otherwise.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is truncated, is no checkpoint, or holds objects that would run code.
    """
    with _clear_errors(path):
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_harmless_globals()):
            content = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected a dict of weights')
    return content


def check_readable(path: Path) -> None:
    """Look at a file that mmengine is about to load, without reading its tensors where the format allows it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is truncated, is no checkpoint, or holds objects that torch refuses.
    """
    with _clear_errors(path):
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected a dict of weights')


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, in words for people."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; expected a .pth, .bin or .safetensors file')
    try:
        yield
    except ImportError as error:
        raise ValueError(f'{path} needs the package safetensors: pip install safetensors') from error
    except pickle.UnpicklingError as error:
        reason, start = str(error), path.read_bytes()[:64]
        if start[:2] not in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
            raise ValueError(f'{path} is truncated or no checkpoint (it starts with {start[:40]!r}); download it again') from error
        match = re.search(r'GLOBAL (\S+)', reason)
        what = match[1] if match else 'objects of a kind that is not allowed'
        raise ValueError(
            f'{path} holds more than tensors and plain values ({what}), and was not opened, because such objects can run code. Ask its '
            'author for the weights alone, or for a .safetensors file'
        ) from error
    except (RuntimeError, OSError, EOFError, zipfile.BadZipFile, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f'{type(error).__name__}: {_first_line(str(error))}'
        raise ValueError(f'{path} is truncated or no checkpoint ({reason}); download it again') from error
    except Exception as error:  # safetensors has an error class of its own
        if type(error).__name__ != 'SafetensorError':
            raise
        raise ValueError(f'{path} is truncated or no safetensors file ({error}); download it again') from error


def _harmless_globals() -> list:
    """What may be in a file besides tensors and plain values: classes that hold values, and what rebuilds them."""
    rebuild, scalar = np.ndarray.__reduce__(np.zeros(1))[0], np.float64(0).__reduce__()[0]
    numpy_1 = [(rebuild, 'numpy.core.multiarray._reconstruct'), (scalar, 'numpy.core.multiarray.scalar')]  # as older versions wrote
    numpy = [np.ndarray, (number_type, 'numpy.dtype'), *{type(np.dtype(name)) for name in NUMBERS}, rebuild, scalar, *numpy_1]
    return [argparse.Namespace, HistoryBuffer, (history_statistic, 'builtins.getattr'), *numpy]


def number_type(name: str, *_) -> np.dtype:
    """Stands in for ``numpy.dtype``: plain numbers only, since other types can make numpy read where it should not."""
    if name not in NUMBERS:
        raise pickle.UnpicklingError(f'weights_only: numpy type {name!r} may not be read')
    return np.dtype(name)


def history_statistic(owner: type, name: str):
    """Stands in for ``getattr``, with which mmengine's log values refer to their own methods; everything else is refused."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'weights_only: attribute {name!r} of {owner!r} may not be read')


def weights_of(content: dict, path: Path) -> dict[str, Tensor]:
    """The weights in what ``read_checkpoint`` returned, without the prefix that data-parallel wrappers add.

    Raises:
        ValueError: when there are none.
    """
    for entry in WEIGHT_ENTRIES:
        if isinstance(content.get(entry), dict):
            content = content[entry]
            break
    weights = {name.removeprefix('module.'): value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f'{path} holds no weights: its entries are {", ".join(map(str, list(content)[:8])) or "none"}')
    return weights


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else 'no reason given'
