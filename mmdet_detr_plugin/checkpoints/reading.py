"""Reading weights without running what a file may carry."""

import argparse
import os
import pickle
import re
import reprlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

NUMBERS = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')
FORCING = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
WEIGHT_ENTRIES = ('state_dict', 'model')  # mmengine's and facebookresearch/detr's


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint file: tensors and plain values.

    ``.safetensors`` holds tensors only; everything else is read inside ``reading_weights_only``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is truncated, is no checkpoint, or holds objects that would run code.
    """
    _check_is_file(path)
    with reading_weights_only(path):
        content = _load_safetensors(path) if path.suffix == '.safetensors' else torch.load(path, map_location='cpu', weights_only=True)
    return _checked_dict(content, path)


def check_readable(path: Path) -> None:
    """Look at a file that mmengine is about to load, without reading its tensors where the format allows it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is truncated, is no checkpoint, or holds objects that torch refuses.
    """
    _check_is_file(path)
    with reading_weights_only(path):
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
    _checked_dict(content, path)


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; expected a .pth, .bin or .safetensors file')


def _checked_dict(content, path: Path) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected a dict of weights')
    return content


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f'{path} needs the package safetensors: pip install safetensors') from error
    return load_file(path)


@contextmanager
def reading_weights_only(source: Path | str) -> Iterator[None]:
    """Inside, ``torch.load`` reads tensors and plain values alone, whatever its caller or ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` asks for.

    Let through are the arguments that facebookresearch/detr stores beside its weights (``argparse.Namespace``), numpy's arrays, and the
    logged values of mmengine, whose checkpoints torch 2.6 and later refuse otherwise.

    Args:
        source: file or address, for messages.

    Raises:
        ValueError: when what is read is truncated, is no checkpoint, or holds objects that would run code.
    """
    try:
        with _forced(), torch.serialization.safe_globals(_harmless_globals()):
            yield
    except (FileNotFoundError, URLError):
        raise
    except ImportError as error:
        raise ValueError(f'{source} cannot be read: {error}') from error
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(source, str(error))) from error
    except Exception as error:  # of damaged files torch raises many kinds, struct.error among them; safetensors has its own
        if 'deserialize object on' in str(error):  # a device that is not there
            raise
        reason = f'{type(error).__name__}: {_first_line(str(error))}'
        raise ValueError(f'{source} is truncated or no checkpoint ({reason}); download it again') from error


@contextmanager
def _forced() -> Iterator[None]:
    """torch's own switch; unlike its default it holds where a caller passes ``weights_only=False`` too, as torch.hub does for addresses."""
    before = {name: os.environ.get(name) for name in FORCING}
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _refusal(source: Path | str, reason: str) -> str:
    start = b'PK'
    if Path(source).is_file():
        with open(source, 'rb') as file:
            start = file.read(64)
    if start[:2] not in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
        return f'{source} is truncated or no checkpoint (it starts with {start[:40]!r}); download it again'
    match = re.search(r'GLOBAL (\S+)', reason)
    what = match[1] if match else 'objects of a kind that is not allowed'
    return (
        f'{source} holds more than tensors and plain values ({what}), and was not opened, because such objects can run code. Ask its '
        'author for the weights alone, or for a .safetensors file'
    )


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


def classes_in(content: dict, path: Path) -> tuple[str, ...] | None:
    """The class names that mmengine, mmdet or this plugin stored beside the weights; None where there are none.

    Raises:
        ValueError: when they are no list of names.
    """
    meta = content.get('meta')
    dataset_meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    found = dataset_meta if isinstance(dataset_meta, dict) else {}
    names = found.get('classes') or found.get('CLASSES') or (meta.get('CLASSES') if isinstance(meta, dict) else None)
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{path} holds {reprlib.repr(names)} as classes, which is no list of names; remove meta from the file')
    return tuple(names) or None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else 'no reason given'
