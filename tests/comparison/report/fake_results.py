"""A comparison that never took place, as results.json would have it: two DETRs and a Faster R-CNN, names that must be escaped, gaps."""

from pathlib import Path
from statistics import fmean, stdev

from PIL import Image, ImageDraw

FIRST, SECOND, THIRD = (
    'local-detr_r18_1xb4-10e_coco320',
    'detr|`r18`_<script>window.injected=1</script>',
    'faster-rcnn_r18_fpn_1xb4-10e_coco320',
)
HOSTILE_CLASS = '<script>window.injected=1</script>|`racoon`'
METRICS = {'AP': 1.0, 'AP50': 2.1, 'AP75': 0.8, 'AP S': None, 'AP M': 0.7, 'AP L': 1.2}
TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 1\nRuntimeError: loss is <NaN> | at `step` 12'
# best AP, share of the schedule until half of it, GFLOPs, parameters, ms, seconds an epoch, MiB
LEVELS = {
    FIRST: (0.34, 0.2, 4.6, 14_300_000, 51.2, 31.0, 2140.0),
    SECOND: (0.012, 0.9, 4.1, 28_700_000, 38.9, 24.0, 1890.0),
    THIRD: (0.26, 0.35, 9.8, 28_200_000, 88.4, 52.5, 2630.0),
}


def fake_results(classes: int = 1, seeds: tuple[int, ...] = (0, 1), epochs: int = 12) -> dict:
    """Three models; the second fails with the last of several seeds, the third has neither health nor decoder layers."""
    names = ['raccoon', HOSTILE_CLASS, *(f'class {number}' for number in range(2, classes))][:classes]
    models = [_model(name, names, seeds, epochs) for name in LEVELS]
    if len(seeds) > 1:
        failed = models[1]['runs'][-1]
        failed.update(state='failed', error=TRACEBACK, metrics={}, curve=failed['curve'][: epochs // 2])
    for model in models:
        _add_means(model)
    return {
        'format': 1,
        'title': f'raccoon & friends: 3 models, {epochs} epochs, {len(seeds)} seeds',
        'created': '2026-11-24T17:00:00Z',
        'complete': len(seeds) == 1,
        'data': {
            'name': 'raccoon',
            'layout': 'voc',
            'splits': {
                'train': {'images': 160, 'objects': 172 * classes, 'empty_images': 0},
                'val': {'images': 40, 'objects': 45 * classes, 'empty_images': 2},
            },
            'evaluated_on': 'val',
            'classes': [{'name': name, 'objects': {'train': 172 - number, 'val': 45 - number}} for number, name in enumerate(names)],
        },
        'budget': {'epochs': epochs, 'batch_size': 4, 'images_seen': 160 * epochs, 'seeds': list(seeds)},
        'audit': _audit(),
        'allowed_unfair': True,
        'preflight': [
            {'area': 'environment', 'severity': 'note', 'finding': 'No GPU.', 'advice': 'Use small configs.'},
            {'area': 'data', 'severity': 'warning', 'finding': '2 boxes in a|b.jpg are <4 pixels wide.', 'advice': 'Look at them.'},
            {'area': 'recipe', 'severity': 'error', 'finding': 'DETR from scratch has 480 steps.', 'advice': 'It needs about 100 000.'},
        ],
        'models': models,
        'pairs': _pairs(),
        'crossovers': [
            {'a': FIRST, 'b': THIRD, 'epoch': 30, 'text': f'{THIRD} is predicted to pass {FIRST} at about epoch 30; this is a prediction.'},
            {'a': SECOND, 'b': THIRD, 'epoch': None, 'text': 'No crossing is predicted within 10 times the schedule.'},
        ],
        'examples': _examples(),
        'repeat': {
            'commands': ['python tools/compare.py a.py b.py --data data/raccoon --seeds 0 1 --epochs 12'],
            'versions': {'torch': '2.13.0', 'mmdet': '3.3.0'},
            'commit': '7efc73d',
            'hardware': {'processor': 'Intel Xeon', 'cores': 2, 'gpu': None, 'memory': {'total_gib': 15.6}},
            'configs': {name: f"model = dict(\n    type='{index}',  # ``` <b>\n)\n" for index, name in enumerate(LEVELS)},
        },
    }


def write_pictures(results: dict, folder: Path) -> None:
    """What ``results`` names, as small pictures."""
    for number, picture in enumerate(picture for group in results['examples'] for picture in group['pictures']):
        path = folder / picture['file']
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new('RGB', (720, 180), (60 + 40 * number, 90, 120))
        for column in range(4):
            ImageDraw.Draw(image).rectangle((180 * column + 40, 40, 180 * column + 120, 140), outline='white', width=3)
        image.save(path)


def _model(name: str, classes: list[str], seeds: tuple[int, ...], epochs: int) -> dict:
    best, half, flops, parameters, milliseconds, epoch_seconds, memory = LEVELS[name]
    with_queries = name != THIRD
    speed = {'p50_ms': milliseconds, 'p95_ms': milliseconds * 1.2, 'fps': 1000 / milliseconds, 'rounds': 30}
    without_nms = (0.999, 2.09) if with_queries else (0.4, 0.6)
    layers = [
        {'layer': layer, 'AP': best * (1 - 0.4 / layer**2), 'duplicates_per_object': (1 - best) / layer**1.5} for layer in range(1, 7)
    ]
    return {
        'name': name,
        'config': f'configs/small/{name.split("|")[0]}.py',
        'kind': {FIRST: 'LocalDETR', SECOND: 'DETR', THIRD: 'FasterRCNN'}[name],
        'parameters': parameters,
        'giga_multiply_adds': flops,
        'latency': speed | {'input': [240, 320], 'device': 'Intel Xeon, 2 threads'},
        'runs': [_run(best + 0.02 * index, half, epoch_seconds, memory, seed, epochs) for index, seed in enumerate(seeds)],
        'epochs_to': {'50': max(1, epochs // 3), '90': epochs if name == FIRST else None},
        'padding': {'single': best, 'padded': best - 0.002, 'batch_size': 8, 'padded_pixels': 0.213},
        'nms': {
            'has_nms': not with_queries,
            'iou': 0.5,
            'with': {'AP': best, 'AP50': 2.1 * best},
            'without': {'AP': without_nms[0] * best, 'AP50': without_nms[1] * best},
        },
        'layers': layers if with_queries else [],
        'duplicates_per_object': 0.06 if with_queries else 0.01,
        'errors': _errors(best),
        'by_class': [
            {'name': each, 'objects': 45 - index, 'AP': best / (1 + index / 9) if index != 3 else None, 'AP50': 2 * best / (1 + index / 9)}
            for index, each in enumerate(classes)
        ],
        'calibration': {'bins': _bins(best), 'expected_error': 0.08 + best / 10},
        'precision_recall': {
            'recall': [step / 100 for step in range(101)],
            'precision': {
                overlap: [max(0.0, 1 - (step / 100 / (reach * (0.2 + 2 * best))) ** 3) for step in range(101)]
                for overlap, reach in (('0.5', 1.0), ('0.75', 0.6))
            },
        },
        'operating_point': {'score_thr': 0.42, 'precision': 0.8, 'recall': 0.7, 'f1': 0.747},
        'health': _health(half, epochs) if with_queries else None,
    }


def _errors(best: float) -> dict:
    parts = {'classification': 0.0, 'localisation': 0.15 - best / 4, 'both': 0.001, 'duplicate': 0.02, 'background': 0.06}
    return parts | {'missed': 0.4 - best, 'false_positive': 0.12, 'false_negative': 0.31 - best / 2}


def _bins(best: float) -> list[dict]:
    """The last one is empty."""
    edges = [step / 10 for step in range(11)]
    counts = [300 // (step + 1) for step in range(9)] + [0]
    return [
        {'lower': lower, 'upper': upper, 'count': count, 'confidence': lower + 0.05, 'precision': lower ** (0.6 + best)}
        for lower, upper, count in zip(edges, edges[1:], counts)
    ]


def _health(half: float, epochs: int) -> dict:
    changes = [{'epoch': epoch, 'share': 0.95 / epoch**half} for epoch in range(2, epochs + 1)]
    return {'queries': 100, 'unused_queries': None if half < 0.5 else 0.62, 'collapsed_pairs': 0.104, 'matching_changes': changes}


def _run(best: float, half: float, epoch_seconds: float, memory: float, seed: int, epochs: int) -> dict:
    def ap(epoch: int) -> float:
        progress = epoch / epochs
        return best * progress**2 / (progress**2 + half**2) * (1 + half**2) * (1 + 0.03 * (-1) ** (epoch + seed) * (epoch < epochs))

    return {
        'seed': seed,
        'state': 'done',
        'error': None,
        'metrics': {metric: None if factor is None else best * factor for metric, factor in METRICS.items()},
        'training_seconds': epoch_seconds * epochs,
        'seconds_per_epoch': epoch_seconds,
        'peak_memory_mib': memory + seed,
        'curve': [
            {'epoch': epoch, 'images': 160 * epoch, 'hours': epoch * epoch_seconds / 3600, 'AP': ap(epoch)}
            for epoch in range(1, epochs + 1)
        ],
    }


def _add_means(model: dict) -> None:
    done = [run for run in model['runs'] if run['state'] == 'done']
    model['metrics'] = {metric: spread([run['metrics'][metric] for run in done]) for metric in METRICS}
    for quantity in ('training_seconds', 'peak_memory_mib'):
        model[quantity] = spread([run[quantity] for run in done])


def spread(values: list[float | None]) -> dict:
    known = [value for value in values if value is not None]
    return {'mean': fmean(known) if known else None, 'std': stdev(known) if len(known) > 1 else None, 'values': values}


def _audit() -> list[dict]:
    same = dict.fromkeys(LEVELS, "train: mmdet.RandomFlip after mmdet.LoadAnnotations={'prob': 0.5}")
    divisors = {
        FIRST: 'data_preprocessor.pad_size_divisor=1',
        SECOND: 'data_preprocessor.pad_size_divisor=1',
        THIRD: 'data_preprocessor.pad_size_divisor=32',
    }
    return [
        {'item': 'train pipeline', 'verdict': 'equal', 'values': same, 'note': ''},
        {'item': 'pad divisor', 'verdict': 'allowed', 'values': divisors, 'note': 'what the network needs of image sizes'},
        {
            'item': 'batch size',
            'verdict': 'unfair',
            'values': {name: f'train_dataloader.batch_size={size}' for name, size in zip(LEVELS, (4, 4, 8))},
            'note': 'make it equal, or the comparison measures this too',
        },
    ]


def _pairs() -> list[dict]:
    def pair(a: str, b: str, metric: str, difference: float, low: float, high: float) -> dict:
        apart = low > 0 or high < 0
        text = (
            f'{a} is better than {b} by {difference:.3f} {metric} on these 40 images (95 % interval {low:.3f} to {high:.3f}).'
            if apart
            else f'The data cannot tell {a} and {b} apart in {metric}.'
        )
        values = {'difference': difference, 'low': low, 'high': high, 'resamples': 2000, 'distinguishable': apart}
        return {'a': a, 'b': b, 'metric': metric, **values, 'text': text}

    return [
        pair(FIRST, SECOND, 'AP', 0.338, 0.271, 0.402),
        pair(FIRST, THIRD, 'AP', 0.080, -0.012, 0.171),
        pair(THIRD, SECOND, 'AP', 0.258, 0.190, 0.322),
    ]


def _examples() -> list[dict]:
    return [
        {
            'group': group,
            'rule': f'The 2 images with the largest difference in F1; group: {group}.',
            'pictures': [
                {
                    'file': f'examples/{prefix}-{number}.png',
                    'alt': f'Ground truth and 3 models on {number}.jpg, "quoted"',
                    'image': f'{number}_<b>.jpg',
                }
                for number in (1, 2)
            ],
        }
        for prefix, group in (('only', f'only {FIRST} right'), ('both', 'both right'))
    ]


def bare_results() -> dict:
    """What is left when every run has failed."""
    results = fake_results()
    for model in results['models']:
        model.update(dict.fromkeys(('latency', 'padding', 'nms', 'health', 'parameters', 'giga_multiply_adds', 'duplicates_per_object')))
        model.update(dict.fromkeys(('metrics', 'training_seconds', 'peak_memory_mib', 'errors', 'calibration', 'precision_recall')))
        model.update(operating_point=None, epochs_to=None, by_class=[], layers=[])
        model['runs'] = [
            {'seed': 0, 'state': 'failed', 'error': TRACEBACK, 'metrics': None, 'curve': []},
            {'seed': 1, 'state': 'missing', 'error': None, 'metrics': None, 'curve': []},
        ]
    results.update(complete=False, pairs=[], crossovers=[], examples=[], preflight=[], allowed_unfair=False)
    results['budget'].update(epochs=None, images_seen=None)
    results['repeat'].update(commit=None, hardware={}, configs={})
    return results
