"""Checkpoints that do not fit stop before anything is computed from them."""

import re
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import find_latest_checkpoint
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from ..checkpoints.conversion import TRAINING_AIDS
from ..checkpoints.reading import check_readable
from ..registry import HOOKS

SCHEDULE = ('begin', 'end', 'milestones', 'step_size', 'T_max', 'gamma', 'factor', 'start_factor', 'total_iters')
CONVERT = "Another implementation's weights are converted by tools/convert_checkpoint.py"
ADVICE = (
    'Write load_from=FILE, with a checkpoint that holds them all (the same backbone, layers, num_queries and num_classes), or let them '
    f'learn. {CONVERT}'
)


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuses checkpoints that mmengine would load in part with a warning, and evaluate with random weights for the rest.

    Evaluation, validation and ``--resume`` need every weight of the model, in its shape, and no other. ``load_from`` of a training may
    leave out what starts anew (class rows, a head): refused is only a file of which nothing fits, or one without weights that the model
    freezes and says so of (``pretrained_prefixes``, how their names begin), which no training would make up for. Model-independent: any
    detector's config may name it in ``custom_hooks``.

    Raises:
        FileNotFoundError: when the checkpoint is not there.
        ValueError: when it is no checkpoint, carries code, does not fit the model, or lacks what ``--resume`` goes on from; and when a
            training of a model with ``pretrained_prefixes`` has loaded nothing.
    """

    priority = 'LOWEST'  # after SafeCheckpointHook, which finds a checkpoint that has moved

    def before_run(self, runner) -> None:
        file = runner._load_from
        if file is None and runner._resume:
            file = find_latest_checkpoint(runner.work_dir)
        if file is not None and '://' not in str(file):
            check_readable(Path(file).expanduser())

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        is_training = isinstance(runner._train_loop, BaseLoop) and not runner._resume  # before that it is a config
        given, wanted = weights_in(checkpoint), weights_in(unwrapped(runner.model).state_dict())
        if not runner._resume and not is_training:  # not used in evaluation, and left out by tools/convert_checkpoint.py
            given, wanted = ({k: v for k, v in weights.items() if not k.startswith(TRAINING_AIDS)} for weights in (given, wanted))
        missing = [name for name in wanted if name not in given]
        other = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
        extra = [name for name in given if name not in wanted]
        if is_training:
            self._check_frozen(runner, wanted, given, missing, other)
        fitting = len(wanted) - len(missing) - len(other)
        if fitting == 0 if is_training else missing or other or extra:
            file, name = runner._load_from or 'the latest checkpoint', type(unwrapped(runner.model)).__name__
            raise ValueError(
                f"{file} does not fit the config's {name}: {fitting} of its {len(wanted)} weights fit; "
                f'{_differences(wanted, given, missing, other, extra)}. Expected a checkpoint that was trained with this config; use its '
                f'own (other num_classes, num_queries, layers?). {CONVERT}'
            )
        if runner._resume:
            _check_resumable(runner, checkpoint)
        else:
            _warn_of_other_classes(runner, checkpoint, is_training)

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        if (prefixes := pretrained_prefixes(model)) and not runner._has_loaded:
            names = ', '.join(f'{prefix}*' for prefix in prefixes)
            raise ValueError(
                f'{type(model).__name__} freezes the weights {names}, and nothing was loaded: they would stay random. {ADVICE}'
            )

    @staticmethod
    def _check_frozen(runner, wanted: dict, given: dict, missing: list[str], other: list[str]) -> None:
        model = unwrapped(runner.model)
        missing, other = ([name for name in names if name.startswith(pretrained_prefixes(model))] for names in (missing, other))
        if missing or other:
            raise ValueError(
                f'{runner._load_from} does not bring all the weights that {type(model).__name__} freezes: '
                f'{_differences(wanted, given, missing, other, [])}. They would stay random. {ADVICE}'
            )


def _warn_of_other_classes(runner, checkpoint: dict, is_training: bool) -> None:
    """Rows of class layers go by their number. In training only where there are as many, since others do not fit and start anew."""
    meta = checkpoint.get('meta')
    before = (meta.get('dataset_meta') or {}).get('classes') if isinstance(meta, dict) else None
    loops = (runner._train_loop,) if is_training else (runner._test_loop, runner._val_loop)
    loop = next((loop for loop in loops if isinstance(loop, BaseLoop)), None)
    dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
    now = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not before or not now or tuple(before) == tuple(now) or (is_training and len(before) != len(now)):
        return
    advice = "Set the data set's metainfo.classes to the checkpoint's, in their order."
    if is_training:
        advice = 'tools/convert_checkpoint.py --classes brings the rows of names that both have to their places.'
    runner.logger.warning(
        f'The checkpoint was trained on the classes {tuple(before)[:12]}, the data to {"train on" if is_training else "evaluate"} has '
        f'{tuple(now)[:12]}: label i of one is taken for label i of the other. {advice}'
    )


def _check_resumable(runner, checkpoint: dict) -> None:
    """mmengine resumes with whatever is there: without the optimiser and the schedules' progress, warm-up and drops begin again."""
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    missing = [] if 'optimizer' in checkpoint else ['optimizer']
    missing += ['param_schedulers'] if schedulers and not checkpoint.get('param_schedulers') else []
    if missing:
        raise ValueError(
            f'{runner._load_from} has no {" and no ".join(missing)}, so that no training can go on from it (best_*.pth and checkpoints '
            'written with save_optimizer=False hold weights alone). Resume from an epoch_*.pth, or start a new run with load_from and '
            'without resume'
        )
    saved = checkpoint.get('param_schedulers') if isinstance(checkpoint.get('param_schedulers'), list) else []
    for scheduler, before in zip(schedulers, saved):
        now = scheduler.state_dict()
        for key in SCHEDULE:
            if key in now and isinstance(before, dict) and before.get(key) != now[key]:
                runner.logger.warning(
                    f"The checkpoint's {type(scheduler).__name__} has {key}={before.get(key)}, the config {now[key]}: a resumed run keeps "
                    "the checkpoint's. For another schedule start a new run with load_from and without resume."
                )
    if len(saved) not in (0, len(schedulers)):
        runner.logger.warning(f'The checkpoint has {len(saved)} schedules, the config {len(schedulers)}: what is left over has no effect.')


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector inside what distributes it or augments its images."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def pretrained_prefixes(model: nn.Module) -> tuple[str, ...]:
    """How the names of the weights begin that a training does not change, and must therefore find in a checkpoint."""
    return tuple(getattr(model, 'pretrained_prefixes', ()))


def weights_in(content: dict) -> dict[str, Tensor]:
    """The weights in a checkpoint or state dict as mmengine names them, without the counters of batch norms."""
    state = content.get('state_dict', content)
    named = ((re.sub(r'^module\.', '', str(name)), value) for name, value in state.items())
    return {name: value for name, value in named if isinstance(value, Tensor) and not name.endswith('num_batches_tracked')}


def _differences(wanted: dict, given: dict, missing: list[str], other: list[str], extra: list[str]) -> str:
    shapes = [f'{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}' for name in other]
    return '; '.join(
        f'{len(names)} {what}: {", ".join(names[:3])}{" ..." if len(names) > 3 else ""}'
        for names, what in ((missing, 'are missing'), (shapes, 'have another shape'), (extra, 'the model does not have'))
        if names
    )
