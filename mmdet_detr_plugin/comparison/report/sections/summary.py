"""The result in plain words, and before it what makes it incomplete or unfair."""

import re
from collections import Counter

from ..blocks import WARNING, Points, Section, Text
from ..formatting import fixed, joined, mean_of, mean_std, moment, plural, short
from .models import done, evaluated_images


def facts(results: dict) -> tuple[str, ...]:
    data, budget = results['data'], results['budget']
    splits = joined(f'{split["images"]} {name}' for name, split in data['splits'].items() if split)
    length = plural(budget['epochs'], 'epoch') if budget.get('epochs') is not None else 'a schedule in iterations'
    images = f'{budget["images_seen"]} images seen, ' if budget.get('images_seen') is not None else ''
    seeds = f'{"seed" if len(budget["seeds"]) == 1 else "seeds"} {joined(map(str, budget["seeds"]))}'
    return (
        f'Data: {data["name"]}, {plural(len(data["classes"]), "class")}; images: {splits}',
        f'Budget: {length}, batches of {budget["batch_size"]}, {images}{seeds}',
        f'Written {moment(results["created"])}',
    )


def alerts(results: dict) -> tuple[str, ...]:
    """Failed and missing runs, and differences that must not be."""
    found = []
    for model in results['models']:
        for run in model['runs']:
            if run['state'] == 'failed':
                found.append(f'{model["name"]}, seed {run["seed"]} failed: {short(last_line(run.get("error")), 300)}')
            elif run['state'] != 'done':
                found.append(f'{model["name"]}, seed {run["seed"]} has not run to its end yet.')
    if not found and not results.get('complete', True):
        found.append('The comparison is not complete.')
    unfair = [item['item'] for item in results.get('audit') or [] if item['verdict'] == 'unfair']
    if unfair:
        consent = ' It was run all the same, with --allow.' if results.get('allowed_unfair') else ''
        found.append(f'Unfair: the models differ in {joined(unfair)}, so their results do not show the models alone.{consent}')
    return tuple(found)


def last_line(error: str | None) -> str:
    """The line that says what went wrong, of a traceback too."""
    lines = [line.strip() for line in (error or '').splitlines() if line.strip()]
    return lines[-1] if lines else 'no message'


def summary(results: dict) -> Section:
    compared, shared = without_shared_ending([pair['text'] for pair in results.get('pairs') or [] if pair['metric'] == 'AP'])
    blocks = [Points(tuple(compared))] if compared else [Text(_without_pairs(results))]
    blocks += [Text(shared)] if shared else []
    others = (_highest(results), _fastest(results), *_shortest_training(results), *_crossovers(results))
    blocks += [Points(known)] if (known := tuple(text for text in others if text)) else []
    counts = Counter(finding['severity'] for finding in results.get('preflight') or [])
    serious = [plural(counts[severity], severity) for severity in ('error', 'warning') if counts[severity]]
    if serious:
        blocks.append(Text(f'The pre-flight check found {joined(serious)}; see Pre-flight findings.', WARNING))
    reading = (
        f'Everything here was measured on {evaluated_images(results)}, with this budget and these settings; '
        'it does not tell what other data, a longer schedule or other learning rates would give.'
    )
    return Section('summary', 'Summary', reading, tuple(blocks), reading_last=True)


def without_shared_ending(texts: list[str]) -> tuple[list[str], str]:
    """The sentences with which all of several texts end, once; the first one of each text stays."""
    sentences, shared = [re.split(r'(?<=\.) ', text) for text in texts], 0
    while len(texts) > 1 and all(len(each) > shared + 1 for each in sentences) and len({each[-1 - shared] for each in sentences}) == 1:
        shared += 1
    ends = [len(each) - shared for each in sentences]
    return [' '.join(each[:end]) for each, end in zip(sentences, ends)], ' '.join(sentences[0][ends[0] :]) if shared else ''


def _without_pairs(results: dict) -> str:
    if len(results['models']) == 1:
        return 'There is one model only, so nothing is compared.'
    return 'No two models have finished runs that could be compared.'


def _highest(results: dict) -> str:
    scored = [model for model in results['models'] if mean_of((model.get('metrics') or {}).get('AP')) is not None]
    if not scored:
        return ''
    best = max(scored, key=lambda model: mean_of(model['metrics']['AP']))
    return f'Highest mean AP: {best["name"]}, {mean_std(best["metrics"]["AP"])} over {plural(len(done(best)), "seed")}.'


def _fastest(results: dict) -> str:
    timed = [model for model in results['models'] if model.get('latency')]
    if not timed:
        return ''
    best = min(timed, key=lambda model: model['latency']['p50_ms'])
    return f'Fastest: {best["name"]}, {fixed(best["latency"]["p50_ms"], 1)} ms for an image (median).'


def _shortest_training(results: dict) -> list[str]:
    timed = [model for model in results['models'] if mean_of(model.get('training_seconds')) is not None]
    if len(timed) < 2:
        return []
    best = min(timed, key=lambda model: mean_of(model['training_seconds']))
    return [f'Shortest training: {best["name"]}, {fixed(mean_of(best["training_seconds"]) / 60, 1)} min for the whole schedule.']


def _crossovers(results: dict) -> list[str]:
    return [
        f'Prediction, not measured: {crossover["text"]}'
        for crossover in results.get('crossovers') or []
        if crossover.get('epoch') is not None
    ]
