"""How long a config trains, and whether its schedule fits that."""

from dataclasses import dataclass

from ..config_files import kind
from .config_facts import dict_at, is_plain_detr, whole
from .finding import NOTE, WARNING, Finding
from .splits import ConfigData

# what the authors of facebookresearch/detr answer to "AP stays at 0" (issues 9, 22, 125)
NEEDED_ITERATIONS, NEEDED_IMAGES = 300_000, 10_000
LONG_WARM_UP = 0.3  # of the training


@dataclass(frozen=True)
class Plan:
    """A training as it is planned.

    Attributes:
        images: of an epoch; None when they are not known.
        batch_size: on one process.
        accumulated: iterations whose gradients one update takes.
        processes: that the learning rate is meant for: auto_scale_lr.base_batch_size / (batch_size * accumulated), else 1.
        epochs: None for a training by iterations.
        iterations: of the whole training on that many processes; None when not known.
    """

    images: int | None
    batch_size: int
    accumulated: int
    processes: int
    epochs: int | None
    iterations: int | None

    @property
    def length(self) -> str:
        """For people."""
        epochs = '' if self.epochs is None else f'{self.epochs} epochs'
        iterations = '' if self.iterations is None else f'{self.iterations} iterations'
        return ' = '.join(filter(None, (epochs, iterations)))


def planned(cfg: dict, data: ConfigData) -> Plan:
    """What ``train_cfg``, the loader and the data say together."""
    train, loader = dict_at(cfg, 'train_cfg'), dict_at(cfg, 'train_dataloader')
    batch_size = whole(loader, 'batch_size') or 1
    accumulated = whole(dict_at(cfg, 'optim_wrapper'), 'accumulative_counts') or 1
    of_update = batch_size * accumulated
    base = whole(dict_at(cfg, 'auto_scale_lr'), 'base_batch_size') or of_update
    processes = base // of_update if base % of_update == 0 else 1
    images = sum(int(split.is_used.sum()) * split.repeats for split in data.training()) or None
    epochs, iterations = whole(train, 'max_epochs'), whole(train, 'max_iters')
    if epochs and images:
        per_process = -(-images // processes)
        iterations = epochs * (per_process // batch_size if loader.get('drop_last') else -(-per_process // batch_size))
    return Plan(images, batch_size, accumulated, processes, epochs, iterations)


def check_length(cfg: dict, plan: Plan) -> list[Finding]:
    """Planned iterations against what plain DETR needs from scratch."""
    is_meant = is_plain_detr(dict_at(cfg, 'model')) and not cfg.get('load_from')
    if not is_meant or plan.iterations is None or plan.iterations >= NEEDED_ITERATIONS:
        return []
    images = 'an unknown number of' if plan.images is None else plan.images
    what = (
        f'plain DETR, its transformer from scratch: {plan.length} on {images} images; its authors name {NEEDED_ITERATIONS} iterations or '
        f'{NEEDED_IMAGES} images as the least (facebookresearch/detr, issues 9, 22, 125)'
    )
    if plan.images is not None and plan.images >= NEEDED_IMAGES:
        advice = 'on COCO, 50 epochs gave an AP of 34.8, 150 gave 39.5, 500 gave 42.0: expect less from less, or train longer'
        return [Finding('recipe', NOTE, what, advice)]
    advice = (
        'expect an AP near 0: fine-tune COCO weights (load_from; tools/convert_checkpoint.py), or take a local-detr or detr-aided config'
    )
    return [Finding('recipe', WARNING, what, advice)]


def check_schedule(cfg: dict, plan: Plan) -> list[Finding]:
    """Warm-up and drops of the rate against the length of the training."""
    findings = []
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        by_epoch = scheduler.get('by_epoch', True)
        length, unit = (plan.epochs, 'epochs') if by_epoch else (plan.iterations, 'iterations')
        if length is None:
            continue
        name, end = kind(scheduler), scheduler.get('end')
        if name in ('LinearLR', 'ConstantLR') and scheduler.get('start_factor', scheduler.get('factor', 1 / 3)) < 1:
            findings += _warm_up(end, length, unit, 1 if by_epoch else plan.processes)
        if late := [milestone for milestone in scheduler.get('milestones') or () if milestone >= length]:
            what = f'{name}: the milestones {late} lie at or beyond the end of the training ({length} {unit})'
            advice = f'the rate does not drop there: move them before {length} (the drop usually comes after two thirds to four fifths)'
            findings.append(Finding('recipe', WARNING, what, advice))
        if scheduler.get('begin', 0) >= length:
            what = f'{name} begins at {scheduler["begin"]}, the training ends after {length} {unit}'
            findings.append(Finding('recipe', WARNING, what, f'it never runs: set begin below {length}'))
        if scheduler.get('T_max', 0) > length:
            what = f'{name}: T_max is {scheduler["T_max"]}, the training ends after {length} {unit}'
            findings.append(Finding('recipe', WARNING, what, f'the rate never comes down: set T_max to {length} less the warm-up'))
    return findings


def _warm_up(end: object, length: int, unit: str, processes: int) -> list[Finding]:
    if not isinstance(end, int):
        return []
    what = f'the warm-up takes {end} {unit}, the training {length}' + (f' on {processes} processes' if processes > 1 else '')
    if length <= end < length * processes:
        advice = f'there the full rate is never reached; on one process the training takes about {length * processes}'
        return [Finding('recipe', NOTE, what, advice)]
    if end >= length:
        return [Finding('recipe', WARNING, what, f'the full rate is never reached: set end to {max(1, length // 20)} or train longer')]
    if end > LONG_WARM_UP * length:
        return [
            Finding('recipe', NOTE, f'{what} ({100 * end / length:.0f} %)', 'little is left at the full rate: shorten it or train longer')
        ]
    return []


def check_evaluation_interval(cfg: dict, plan: Plan) -> list[Finding]:
    """mmengine evaluates every ``val_interval`` from ``val_begin`` on, and at the end."""
    train = dict_at(cfg, 'train_cfg')
    length, unit = (plan.epochs, 'epochs') if plan.epochs else (plan.iterations, 'iterations')
    if not length or not cfg.get('val_dataloader'):
        return []
    default = 1 if plan.epochs else 1000
    interval, begin = train.get('val_interval', default), train.get('val_begin', 1)
    if begin > length:
        what = f'train_cfg.val_begin is {begin}, the training ends after {length} {unit}'
        return [Finding('recipe', WARNING, what, f'it is never evaluated: set val_begin to {length} or less')]
    if interval > length:
        what = f'train_cfg.val_interval is {interval}, the training ends after {length} {unit}'
        advice = f'the interval is never reached, only the end is evaluated: set it to {max(1, length // 10)} for a learning curve'
        return [Finding('recipe', WARNING, what, advice)]
    return []
