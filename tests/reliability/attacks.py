"""Files that try to run code: each leaves a mark where one of its lines was executed."""

import io
import pickle
import tarfile
from pathlib import Path

import torch

KINDS = ('zip', 'legacy', 'tar', 'pickle')
PLACES = ('top', 'optimizer', 'param_schedulers', 'message_hub', 'state_dict')


class Code:
    """Becomes a call of ``os.system`` when it is read by an ordinary unpickler."""

    def __init__(self, mark: Path) -> None:
        self.command = f'touch {mark}'

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def checkpoint(path: Path, mark: Path, kind: str = 'zip', place: str = 'top', weights: dict | None = None) -> Path:
    """A checkpoint of mmengine's form with code in it.

    Args:
        kind: how it is packed: torch's two formats, the tar archive of its first versions, or a plain pickle.
        place: the entry that holds the code.
        weights: otherwise the state dict holds one number.
    """
    content = dict(
        meta=dict(epoch=1, iter=1),
        state_dict=dict(weights or {'a': torch.ones(1)}),
        optimizer=dict(state={}, param_groups=[]),
        param_schedulers=[],
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    )
    if place == 'param_schedulers':
        content[place].append(Code(mark))
    else:
        (content if place == 'top' else content[place])['code'] = Code(mark)
    if kind == 'tar':
        with tarfile.open(path, 'w') as archive:
            for name in ('sys_info', 'pickle', 'storages', 'tensors'):
                raw = pickle.dumps(Code(mark))
                entry = tarfile.TarInfo(name)
                entry.size = len(raw)
                archive.addfile(entry, io.BytesIO(raw))
    elif kind == 'pickle':
        path.write_bytes(pickle.dumps(Code(mark), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    return path


def laughs(levels: int = 9) -> str:
    """XML entities that stand for ten of the level below each."""
    entities = ''.join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, levels))
    return (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "laugh">{entities}]><annotation><filename>&e{levels - 1};</filename></annotation>'
    )


def alias_bomb(levels: int = 12) -> str:
    """YAML lists of ten times the level below each."""
    lines = ['a0: &a0 [cat, cat]', *(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, levels))]
    return '\n'.join([*lines, f'names: *a{levels - 1}', 'train: images', ''])


def merge_bomb(levels: int = 12) -> str:
    """YAML mappings that merge ten of the level below each."""
    lines = ['a0: &a0 {x: 1}', *(f'a{i}: &a{i} {{<<: [{", ".join([f"*a{i - 1}"] * 10)}]}}' for i in range(1, levels))]
    return '\n'.join([*lines, 'names: [cat, dog]', 'train: images', ''])
