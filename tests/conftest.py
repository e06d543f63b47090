"""Fixtures that several test folders share."""

import logging
import os
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / 'shared' / 'data'


LONGEST = ('tools', 'benchmark', 'deployment', 'configs')  # folders


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those that share costly fixtures stay in one, and the longest files come first."""
    items.sort(key=lambda item: LONGEST.index(item.path.parent.name) if item.path.parent.name in LONGEST else len(LONGEST))
    for item in items:
        together = item.path.parent if item.path.parent.name == 'deployment' else item.path
        item.add_marker(pytest.mark.xdist_group(str(together.relative_to(ROOT))))


@pytest.fixture(scope='session', autouse=True)
def faster_processes():
    """For processes that tests start, transformers is not there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv('PYTHONPATH', str(ROOT / 'tests' / 'child_processes'), prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True)
def mmdet_scope_and_seed():
    """As in a run of mmdet: its scope is the default; and every test starts from the same random state."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        init_default_scope('mmdet')
    MMLogger.get_current_instance().setLevel(logging.WARNING)  # init_weights prints every parameter
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)  # which a run may have set


@pytest.fixture(scope='session')
def shapes_dir(tmp_path_factory) -> Path:
    """A small shapes data set: 16 training and 8 test images."""
    from mmdet_detr_plugin.datasets.shapes import write_split

    out = tmp_path_factory.mktemp('data') / 'shapes'
    write_split(out, seed=0, split='train', count=16)
    write_split(out, seed=0, split='test', count=8)
    return out


@pytest.fixture
def shared_data() -> Path:
    """Real images beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f'needs the real images in {SHARED_DATA}')
    return SHARED_DATA
