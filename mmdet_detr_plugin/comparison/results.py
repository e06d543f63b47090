"""The content of a comparison's results.json, from what its runs have left (format 1; the report is made of it and nothing else)."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config

from ..config_files import configs_folder, kind
from .analysis.bootstrap import compare_pairs
from .analysis.by_group import by_class
from .analysis.coco_input import Annotations, read_annotations
from .analysis.duplicates import apply_nms, duplicates_per_object
from .analysis.error_types import error_types
from .analysis.matches import METRICS, Matches, match
from .analysis.score_curves import calibration, operating_point, precision_recall
from .evaluators import PANOPTIC_QUALITY
from .execution import Run
from .learning_curves import crossover, epochs_to, mean_curve
from .preparation import Model
from .run_records import evaluations, peak_memory_mib, seconds_per_epoch

USUAL_NMS_IOU = 0.5
NOTHING_ANALYSED = dict(
    padding=None,
    nms=None,
    layers=[],
    duplicates_per_object=None,
    errors=None,
    by_class=[],
    calibration=None,
    precision_recall=None,
    operating_point=None,
    health=None,
)


def summary_of(values: Sequence[float | None]) -> dict:
    """``mean``, ``std`` (of the sample; None for a single value) and ``values``, of what is known."""
    known = [value for value in values if value is not None]
    return dict(
        mean=statistics.mean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        values=list(values),
    )


def truth_for(runs: Sequence[Run], annotation_file: Path) -> Annotations | None:
    """What finished runs of any models are judged by: the objects of the categories that one of them was made for; None before that.

    A file may hold more categories than the models have classes; mmdet's own metric leaves those out too.
    """
    known = [run.read('evaluation').get('categories') for run in runs if run.is_done]
    if not known:
        return None
    everything = None in known  # evaluated by an earlier version, which did not note it
    return read_annotations(annotation_file, None if everything else {number for categories in known for number in categories})


def model_results(
    model: Model, runs: Sequence[Run], speed: dict, truth: Path | Annotations | None, images_per_epoch: int
) -> tuple[dict, list[Matches]]:
    """One entry of ``models``, and the matches of every finished run for what compares models.

    Args:
        speed: what ``speed.measure`` says of the model.
        truth: the annotation file of the evaluation, or what ``truth_for`` made of it; None for no run that is done.
    """
    done = [run for run in runs if run.is_done]
    found = {name: [match(truth, detections_of(run, name)) for run in done] for name in ('single', 'padded')}
    matches = found[main_detections(model.cfg)]
    entries = [_run_entry(run, matches[done.index(run)] if run in done else None, model, images_per_epoch) for run in runs]
    curves = [entry['curve'] for entry in entries if entry['state'] == 'done']
    entry = dict(
        name=model.name,
        config=_shown(model.source),
        kind=kind(model.cfg.model),
        **speed,
        runs=entries,
        metrics={name: summary_of([item['metrics'][name] for item in entries if item['metrics']]) for name in METRICS},
        panoptic=_panoptic([run.read('evaluation').get('panoptic') for run in done]),
        training_seconds=summary_of([item['training_seconds'] for item in entries if item['state'] == 'done']),
        peak_memory_mib=summary_of([item['peak_memory_mib'] for item in entries if item['state'] == 'done']),
        epochs_to=epochs_to(mean_curve(curves)),
        **(_analysed(done, found, matches, truth) if done else NOTHING_ANALYSED),
    )
    return entry, matches


def _analysed(done: Sequence[Run], found: dict[str, list[Matches]], matches: list[Matches], truth: Path | Annotations) -> dict:
    """What is said of the finished runs together."""
    facts = [run.read('evaluation') for run in done]
    point = operating_point(matches)
    return dict(
        padding=dict(
            single=_mean_ap(found['single']),
            padded=_mean_ap(found['padded']),
            batch_size=facts[0]['padding']['batch_size'],
            padded_pixels=facts[0]['padding']['padded_pixels'],
        ),
        nms=_nms(done, facts, truth, found['single']),
        layers=_layers(done, facts, truth, point['score_thr']),
        duplicates_per_object=duplicates_per_object(matches),
        errors=error_types(matches),
        by_class=by_class(matches),
        calibration=calibration(matches),
        precision_recall=precision_recall(matches),
        operating_point=point,
        health=_health([fact['health'] for fact in facts]),
    )


def _panoptic(of_runs: Sequence[dict | None]) -> dict | None:
    """Panoptic quality, in percent, of models with segments."""
    known = [found for found in of_runs if found]
    return {name: summary_of([found[name] for found in known]) for name in PANOPTIC_QUALITY} if known else None


def main_detections(cfg: Config) -> str:
    """Those that the figures of a model are of: at the config's own evaluation batch size."""
    return 'padded' if cfg.test_dataloader.batch_size > 1 else 'single'


def compared(models: Sequence[dict], matches: dict[str, list[Matches]], resamples: int = 2000) -> dict:
    """``pairs`` and ``crossovers`` of a results.json, among the models with a finished run."""
    names = [model['name'] for model in models if matches[model['name']]]
    pairs = compare_pairs({name: matches[name] for name in names}, resamples=resamples) if len(names) > 1 else []
    curves = {model['name']: mean_curve([run['curve'] for run in model['runs'] if run['state'] == 'done']) for model in models}
    crossovers = [crossover(pair.a, curves[pair.a], pair.b, curves[pair.b]) for pair in pairs]
    return dict(pairs=[asdict(pair) for pair in pairs], crossovers=[found for found in crossovers if found])


def _shown(config: Path) -> str:
    """A shipped config by its name, so that a report that is passed on holds no path of the machine for it."""
    config = config.resolve()
    return f'configs/{config.relative_to(configs_folder())}' if config.is_relative_to(configs_folder()) else str(config)


def _run_entry(run: Run, matches: Matches | None, model: Model, images_per_epoch: int) -> dict:
    failed = run.read('failed')
    state = 'done' if matches is not None else 'failed' if failed else 'missing'
    error = f'{failed["step"]} ended with {failed["reason"]}; the end of {run.log}:\n{failed["log"][-1500:]}' if failed else None
    entry = dict(seed=run.seed, state=state, error=error if state == 'failed' else None, metrics=None, training_seconds=None)
    entry |= dict(seconds_per_epoch=None, peak_memory_mib=None, curve=[])
    if run.is_trained:
        seconds = seconds_per_epoch(run.training)
        curve = [
            dict(epoch=epoch, images=epoch * images_per_epoch, hours=epoch * seconds / 3600, AP=value)
            for epoch, value in evaluations(run.training)
        ]
        entry |= dict(
            training_seconds=seconds * (model.epochs or 1),
            seconds_per_epoch=seconds,
            peak_memory_mib=peak_memory_mib(run.training) or run.read('trained').get('peak_process_mib'),
            curve=curve,
        )
    if matches is not None:
        entry['metrics'] = matches.metrics()
    return entry


def detections_of(run: Run, name: str) -> list[dict]:
    """COCO results that an evaluation has written."""
    return json.loads((run.folder / 'detections' / f'{name}.json').read_text())


def _mean_ap(matches: Sequence[Matches], metric: str = 'AP') -> float | None:
    return summary_of([run.metrics()[metric] for run in matches])['mean']


def _nms(done: Sequence[Run], facts: Sequence[dict], truth: Path | Annotations, single: Sequence[Matches]) -> dict:
    """AP with NMS and without: the model's own where it has one, else one of the usual threshold added to it."""
    own = facts[0]['nms_iou']
    if own is None:
        added = [match(truth, apply_nms(detections_of(run, 'single'), USUAL_NMS_IOU)) for run in done]
        both = dict(zip(('with', 'without'), (added, single)))
    else:
        both = dict(zip(('with', 'without'), (single, [match(truth, detections_of(run, 'unsuppressed')) for run in done])))
    figures = {name: {metric: _mean_ap(runs, metric) for metric in ('AP', 'AP50')} for name, runs in both.items()}
    return dict(has_nms=own is not None, iou=USUAL_NMS_IOU if own is None else own, **figures)


def _layers(done: Sequence[Run], facts: Sequence[dict], truth: Path | Annotations, score_thr: float) -> list[dict]:
    rows = []
    for layer in range(1, facts[0]['layers'] + 1):
        matches = [match(truth, detections_of(run, f'layer{layer}')) for run in done]
        rows.append(dict(layer=layer, AP=_mean_ap(matches), duplicates_per_object=duplicates_per_object(matches, score_thr)))
    return rows


def _health(facts: Sequence[dict | None]) -> dict | None:
    """Means over the runs."""
    known = [fact for fact in facts if fact]
    if not known:
        return None
    shares: dict[int, list[float]] = {}
    for fact in known:
        for change in fact['matching_changes']:
            shares.setdefault(change['epoch'], []).append(change['share'])
    return dict(
        queries=known[0]['queries'],
        unused_queries=summary_of([fact['unused_queries'] for fact in known])['mean'],
        collapsed_pairs=summary_of([fact['collapsed_pairs'] for fact in known])['mean'],
        matching_changes=[dict(epoch=epoch, share=statistics.mean(values)) for epoch, values in sorted(shares.items())],
    )
