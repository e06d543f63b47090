"""Written reports that several files read."""

from pathlib import Path

import pytest

from mmdet_detr_plugin.comparison.report import write_report

from .fake_results import fake_results, write_pictures


def written(results: dict, folder: Path) -> Path:
    write_pictures(results, folder)
    write_report(results, folder)
    return folder


@pytest.fixture(scope='session')
def folders(tmp_path_factory) -> dict[str, Path]:
    """One class, thirty of them, and one epoch with one seed."""
    variants = dict(one={}, many=dict(classes=30), short=dict(seeds=(0,), epochs=1))
    return {name: written(fake_results(**options), tmp_path_factory.mktemp(name)) for name, options in variants.items()}
