"""The pre-flight: what is worth knowing before a training starts. What ``tools/doctor.py`` shows.

``findings`` makes all checks. By area: ``environment_findings(cfg)``, also without a config; ``data_findings(cfg, data)`` and
``recipe_findings(cfg, data)``, with ``data = read_data(cfg)`` read once for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .annotations import Annotations, read_annotations
from .data import data_findings
from .environment import environment_findings
from .finding import ERROR, NOTE, WARNING, Finding, ordered, text
from .recipe import recipe_findings
from .splits import read_data

if TYPE_CHECKING:  # the pre-flight must run where mmengine is what is broken
    from mmengine.config import Config

__all__ = [
    'ERROR',
    'NOTE',
    'WARNING',
    'Finding',
    'data_findings',
    'environment_findings',
    'findings',
    'ordered',
    'read_annotations',
    'read_data',
    'recipe_findings',
    'text',
]


def findings(cfg: Config | None = None, read: Callable[..., Annotations] = read_annotations) -> list[Finding]:
    """All findings, by area, the most severe first; without a config the environment's alone. Reads each annotation file once.

    Args:
        read: ``functools.cache(read_annotations)``, given for several configs, reads each file once for all of them.
    """
    found = environment_findings(cfg)
    if cfg is not None:
        data = read_data(cfg, read)
        found += data_findings(cfg, data) + recipe_findings(cfg, data)
    return ordered(found)
