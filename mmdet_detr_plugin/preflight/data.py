"""All checks of the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .boxes import check_boxes
from .classes import check_class_balance, check_class_names, check_head_classes
from .config_facts import dict_at
from .duplicates import check_shared_images
from .finding import ERROR, Finding, guarded
from .images import check_files, check_sample, check_segment_files
from .objects import check_empty_images, check_most_objects
from .splits import ConfigData, read_data

if TYPE_CHECKING:  # the pre-flight must run where mmengine is what is broken
    from mmengine.config import Config


def data_findings(cfg: Config, data: ConfigData | None = None) -> list[Finding]:
    """What a config's annotation files and images hold, against what the config says.

    Args:
        data: of this config, when it is read already.
    """
    data, content = data or read_data(cfg), cfg.to_dict()
    findings = list(data.findings)
    pipeline = next((split.pipeline for split in data.evaluation()), [])
    for split in data.splits:
        findings += guarded('data', check_class_names, split)
        findings += guarded('data', check_empty_images, split)
        findings += guarded('data', check_most_objects, content, split)
        findings += guarded('data', check_boxes, split, pipeline)
        findings += guarded('data', check_files, split)
        if split.segment_dir is not None:
            findings += guarded(
                'data', check_segment_files, split.name, split.segment_dir, split.annotations.segment_files, 'data_prefix.seg'
            )
        findings += guarded('data', check_sample, split)
    findings += guarded('data', check_head_classes, content, data.splits)
    findings += guarded('data', check_class_balance, data.splits)
    findings += guarded('data', check_evaluation_file, content, data)
    findings += guarded('data', check_shared_images, data.splits)
    return findings


def check_evaluation_file(cfg: dict, data: ConfigData) -> list[Finding]:
    """What the metrics read: the file of the loader, with what pycocotools needs, and the PNGs of segments."""
    findings = []
    for loader in ('val', 'test'):
        evaluators = cfg.get(f'{loader}_evaluator') or []
        splits = [split for split in data.evaluation() if loader in split.name.split()]
        evaluators = list(map(dict_at, evaluators if isinstance(evaluators, list) else [evaluators]))
        files = [evaluator['ann_file'] for evaluator in evaluators if evaluator.get('ann_file')]
        for folder in {evaluator['seg_prefix'] for evaluator in evaluators if splits and evaluator.get('seg_prefix')}:
            name = f'{loader}_evaluator'
            findings += check_segment_files(name, Path(folder), splits[0].annotations.segment_files, f'{name}.seg_prefix')
        # one is enough: panoptic data sets have a second file, with the boxes of things
        if splits and files and all(Path(file).resolve() != splits[0].annotations.path.resolve() for file in files):
            what = f'{loader}_evaluator reads {files[0]}, {loader}_dataloader {splits[0].annotations.path}: 2 files for 1 evaluation'
            advice = f'set {loader}_evaluator.ann_file to the file of the loader: image ids of another file mean other images'
            findings.append(Finding('data', ERROR, what, advice))
    for split in data.evaluation():
        if lacking := split.annotations.num_without_iscrowd:
            what = f'{split.name}: {lacking} of {len(split.annotations.ids)} annotations have no "iscrowd"'
            findings.append(Finding('data', ERROR, what, "pycocotools' evaluation stops without it: write iscrowd=0"))
    return findings
