"""The whole comparison: audit, pre-flight, trainings, evaluation, report. What ``tools/compare.py`` runs."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..config_files import image_folder
from ..files import write_json
from ..preflight import findings, read_annotations
from ..preflight.finding import ERROR, Finding
from . import speed
from .audit import AuditItem, audit, delivered_item, is_fair
from .context import budget, data_facts, how_to_repeat, images_per_epoch
from .evaluators import box_evaluator
from .execution import Launch, Run, execute
from .pictures import draw_examples
from .preparation import Model, short_names
from .progress import ProgressDisplay
from .report.write import FORMAT, write_report
from .results import compared, detections_of, main_detections, model_results, truth_for
from .run_records import last_checkpoint

AUDITED_BATCHES = 10


@dataclass
class Comparison:
    """Models, seeds and the folder that everything is written to.

    Attributes:
        models: what is compared.
        files: each model's resolved config, by name.
        seeds: one training of each model for each.
        work_dir: the folder.
        launch: how trainings are started.
        data_name: for the report's title.
        command: how to start this comparison again.
    """

    models: Sequence[Model]
    files: dict[str, Path]
    seeds: Sequence[int]
    work_dir: Path
    launch: Launch
    data_name: str
    command: str

    @property
    def labels(self) -> dict[str, str]:
        """What the report calls each model."""
        return short_names(list(self.files))

    def runs(self) -> list[Run]:
        """Seed by seed, so that every model has a result early."""
        return [
            Run(model.name, seed, self.files[model.name], self.work_dir / 'runs' / model.name / f'seed{seed}', model.epochs)
            for seed in self.seeds
            for model in self.models
        ]

    def audited(self) -> list[AuditItem]:
        """Settings and delivered samples, compared."""
        cfgs = [model.cfg for model in self.models]
        return [*audit(cfgs), delivered_item(cfgs, AUDITED_BATCHES)]

    def preflight(self) -> list[tuple[str, Finding]]:
        """(model, finding); what all models share is named once, with no model."""
        read = functools.cache(read_annotations)  # models mostly share their files, and COCO's takes seconds
        by_model = {model.name: [*model.conversion, *findings(model.cfg, read)] for model in self.models}
        shared = [found for found in by_model[self.models[0].name] if all(found in others for others in by_model.values())]
        own = [(name, found) for name, of_model in by_model.items() for found in of_model if found not in shared]
        return [('', found) for found in shared] + own

    def train(self) -> list[Run]:
        """Train and evaluate what is not done; the runs that failed."""
        runs = self.runs()
        with ProgressDisplay(runs, self.launch.jobs) as show:
            return execute(runs, self.launch, show)

    def report(
        self, items: Sequence[AuditItem], preflight: Sequence[tuple[str, Finding]], say: Callable[[str], None] = print
    ) -> list[Path]:
        """Write results.json, report.html and report.md from what is there, whether or not everything is done."""
        say('measuring speed')
        speeds = self._speeds()
        say('analysing detections')
        results = self._results(items, preflight, speeds)
        write_json(self.work_dir / 'results.json', results)
        return [*write_report(results, self.work_dir), self.work_dir / 'results.json']

    def _results(self, items: Sequence[AuditItem], preflight: Sequence[tuple[str, Finding]], speeds: dict[str, dict]) -> dict:
        first, labels, runs = self.models[0].cfg, self.labels, self.runs()
        facts = data_facts(first, self.data_name)
        images, truth_file = images_per_epoch(first), Path(box_evaluator(first)['ann_file'])
        entries, matches, truth = [], {}, truth_for(runs, truth_file)
        for model in self.models:
            own, label = [run for run in runs if run.model == model.name], labels[model.name]
            entry, matches[label] = model_results(model, own, speeds[model.name], truth, images)
            entries.append({**entry, 'name': label})
        epochs = f'{self.models[0].epochs} epochs, ' if self.models[0].epochs else ''
        return dict(
            format=FORMAT,
            title=f'{self.data_name}: {len(self.models)} models, {epochs}{len(self.seeds)} seed{"s" * (len(self.seeds) != 1)}',
            created=datetime.now(UTC).isoformat(timespec='seconds'),
            complete=all(run.is_done for run in runs),
            data=facts,
            budget=budget(self.models, self.seeds, images, self.launch.processes),
            audit=[
                dict(item=item.item, verdict=item.verdict, values=dict(zip(labels.values(), item.values, strict=True)), note=item.note)
                for item in items
            ],
            allowed_unfair=not is_fair(items),
            preflight=[
                {**found.as_dict(), 'finding': f'{labels[name]}: {found.finding}' if name else found.finding} for name, found in preflight
            ],
            models=entries,
            **compared(entries, matches),
            examples=self._examples(entries, matches, truth_file, image_folder(first.test_dataloader)),
            repeat=how_to_repeat([self.command], {labels[name]: path.read_text() for name, path in self.files.items()}),
        )

    def _examples(self, entries: Sequence[dict], matches: dict, truth: Path, images: Path) -> list[dict]:
        thresholds = {entry['name']: entry['operating_point']['score_thr'] for entry in entries if matches[entry['name']]}
        if len(thresholds) < 2:
            return []
        detections = {}
        for model in self.models:
            done = [run for run in self.runs() if run.model == model.name and run.is_done]
            if done:
                detections[self.labels[model.name]] = detections_of(done[0], main_detections(model.cfg))
        return draw_examples({name: matches[name][0] for name in thresholds}, detections, thresholds, truth, images, self.work_dir)

    def _speeds(self) -> dict[str, dict]:
        """Of trained networks where there are some: what a detector's last steps cost depends on what it detects. Measured once and kept;
        a change of the machine needs the file's removal."""
        kept, trained = self.work_dir / 'speed.json', {}
        for run in reversed(self.runs()):
            if run.is_trained:
                trained[run.model] = last_checkpoint(run.training)
        wanted = {name: str(trained.get(name)) for name in self.files}
        if kept.is_file() and (found := json.loads(kept.read_text())).get('checkpoints') == wanted:
            return found['speeds']
        found = speed.measure({model.name: (model.cfg, trained.get(model.name)) for model in self.models})
        write_json(kept, dict(checkpoints=wanted, speeds=found))
        return found


def stopping(preflight: Sequence[tuple[str, Finding]]) -> list[str]:
    """Findings that would make the trainings fail or mean something else than they seem to."""
    return [f'{name}: {found.finding}' if name else found.finding for name, found in preflight if found.severity == ERROR]
