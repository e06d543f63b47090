"""Checkpoints that survive a kill at any moment.

mmengine 0.10.7 deletes old checkpoints before it has written the new one, writes in place, and forgets a validation that was interrupted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop

from ..files import write_atomically
from ..registry import HOOKS
from .epoch_seed_hook import EpochSeedHook
from .plain_checkpoint_hook import PlainCheckpointHook
from .resumable_checkpoint import check_named, dropped_load_from, resumable_checkpoint


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with its arguments and file names, in an order in which nothing can be lost.

    Checkpoints and the pointer ``last_checkpoint`` are written to temporary files and renamed; what they replace is deleted after that. An
    epoch's checkpoint is written again after its validation, so that it knows the best metric and whatever else follows from the metric
    (``ReduceOnPlateauLR``). When training resumes from one that was not, that validation is done first.

    A write that fails, on a full disk, ends the training and leaves every file as it was. A run that resumes says from which checkpoint;
    when the newest is damaged, from the newest whole one. A first start with ``--resume`` starts from ``load_from``, as one without.

    Only this run's own files, those in its output folder, are ever deleted. Other storage than local files is written through its own
    backend, as mmengine does.

    Raises:
        ValueError: before training, when not all processes resume from the same checkpoint; ``last_checkpoint`` names a file of another
            folder or an address; there is only a damaged checkpoint; or its list of older ones holds other things than numbers.
        OSError: when a checkpoint cannot be written.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        is_local = '://' not in str(self.out_dir or '') and self.backend_args in (None, dict(backend='local'))
        if is_local and self.file_client_args is None:
            self.backend_args = dict(backend='mmdet_detr_plugin.AtomicLocalBackend')
        self.is_training = False

    def before_run(self, runner) -> None:
        if not runner._resume:
            return
        if runner._load_from is None:
            found = resumable_checkpoint(Path(runner.work_dir), self.out_dir, self.filename_tmpl, runner.logger.warning)
            runner._load_from, runner._resume = found or dropped_load_from(runner.cfg), found is not None
            if found is None:
                start = f'the weights of load_from={runner._load_from}' if runner._load_from else 'the beginning'
                pointer = Path(runner.work_dir) / 'last_checkpoint'
                runner.logger.warning(f'Nothing to resume from: {pointer} is not there. The training starts from {start}.')
        else:
            check_named(str(runner._load_from))
        if runner._resume:
            runner.logger.info(f'Resuming from {runner._load_from}.')

    def before_train(self, runner) -> None:
        self._check_start(runner)
        ids = runner.message_hub.runtime_info.get('keep_ckpt_ids')
        if ids is not None and not (isinstance(ids, (list, tuple)) and all(type(step) is int for step in ids)):
            raise ValueError(
                f'the checkpoint to resume from lists {ids!r:.200} as checkpoints that may be deleted; expected numbers of epochs. It was '
                'not written by mmengine; train anew with load_from'
            )
        super().before_train(runner)  # deletes what a kill has left beyond max_keep_ckpts
        if is_main_process():
            for folder, pattern in ((runner.work_dir, 'last_checkpoint.tmp'), (self.out_dir, '*.pth.tmp')):
                for half_written in Path(folder).glob(pattern):
                    half_written.unlink()
        self.is_training = True
        self._set_best_paths([self._here(path) for path in self._best_paths()])
        info = runner.message_hub.runtime_info
        if self.save_best:
            self._remove([self._here(path) for path in info.get('outdated_ckpts', [])])
        if runner.iter > 0:
            self.last_ckpt = info.get('last_ckpt') and self._here(info['last_ckpt'])
            if self.by_epoch and self._validation_is_due(runner) and info.get('last_validated') != runner.epoch:
                runner.logger.info(f'The checkpoint knows of no complete validation after epoch {runner.epoch}; it is done now.')
                runner.val_loop.run()

    def after_val_epoch(self, runner, metrics) -> None:
        if not self.is_training:  # runner.val(): there is nothing to save
            return
        runner.message_hub.update_info('last_validated', runner.epoch)
        self._is_saved = False
        super().after_val_epoch(runner, metrics)
        if self.by_epoch and not self._is_saved and self.last_ckpt == self._path(runner.epoch):
            self._save_checkpoint_with_step(runner, runner.epoch, meta=dict(epoch=runner.epoch, iter=runner.iter))

    def _check_start(self, runner) -> None:
        starts = all_gather_object((runner.epoch, runner.iter))
        if len(set(starts)) > 1:
            raise ValueError(
                f'the processes start from different checkpoints, (epoch, iteration) by rank: {starts}. All must find the same one: put '
                f'work_dir ({runner.work_dir}) on a disk that all machines share, or copy it to each'
            )
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        if runner.iter == 0 and is_main_process() and pointer.is_file():
            earlier = pointer.with_name('last_checkpoint.earlier_run')
            os.replace(pointer, earlier)  # else an interruption before the first checkpoint would resume the earlier run
            runner.logger.warning(
                f'{runner.work_dir} holds checkpoints of an earlier run, which this new run will overwrite; its last one is named in '
                f'{earlier.name} (to go on with it, stop and use --resume {pointer.with_name(Path(earlier.read_text().strip()).name)}).'
            )
        if not self.by_epoch and isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                'Checkpoints by iterations: a run resumed in the middle of an epoch sees that epoch from its start again.'
            )
        for needed, why in ((EpochSeedHook, 'a resumed run will differ'), (PlainCheckpointHook, 'torch 2.6 and later will not read them')):
            if not any(isinstance(hook, needed) for hook in runner.hooks):
                runner.logger.warning(
                    f'Checkpoints are written without {needed.__name__}: {why}. Add it to custom_hooks; a config that inherits hooks '
                    'writes custom_hooks = _base_.custom_hooks + [...].'
                )

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            # The new file also names the outdated one: killed before deleting it, the resumed run finds it in its list.
            runner.message_hub.update_info('keep_ckpt_ids', outdated + list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with failures_explained(runner):
            runner.save_checkpoint(
                self.out_dir,
                self.filename_tmpl.format(step),
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_atomically(self.last_ckpt.encode(), Path(runner.work_dir) / 'last_checkpoint')
        self._is_saved = True
        if outdated:
            self._remove([self._path(old) for old in outdated])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if not self.save_best:
            return
        former = self._best_paths()
        runner.message_hub.update_info('outdated_ckpts', former)
        self._set_best_paths([None] * len(former))  # mmengine deletes them first; here it knows of none
        with failures_explained(runner):
            super()._save_best_checkpoint(runner, metrics)
        current = [new or old for new, old in zip(self._best_paths(), former, strict=True)]
        self._set_best_paths(current)
        self._remove(former)

    def _best_paths(self) -> list[str | None]:
        """The best checkpoint for each key of ``save_best``."""
        if not self.save_best:
            return []
        return list(self.best_ckpt_path_dict.values()) if hasattr(self, 'best_ckpt_path_dict') else [self.best_ckpt_path]

    def _set_best_paths(self, paths: list[str | None]) -> None:
        if hasattr(self, 'best_ckpt_path_dict'):
            self.best_ckpt_path_dict = dict(zip(self.best_ckpt_path_dict, paths, strict=True))
        elif paths:
            self.best_ckpt_path = paths[0]

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def _here(self, path: str | None) -> str | None:
        """The file of that name in this run's folder: the folder may have moved, and another run's files are not ours to delete.

        None for what is no checkpoint's name: it comes from a file, and ``..`` would be the folder above.
        """
        name = Path(path).name if isinstance(path, str) else ''
        is_checkpoint = name not in ('', '..') and Path(name).suffix == Path(self.filename_tmpl).suffix
        return self.file_backend.join_path(self.out_dir, name) if is_checkpoint else None

    def _remove(self, paths: list[str | None]) -> None:
        if is_main_process():
            for path in {path for path in paths if path} - set(self._best_paths()):
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):  # deepspeed
                    self.file_backend.rmtree(path)

    @staticmethod
    def _validation_is_due(runner) -> bool:
        loop = runner.train_loop
        loop._decide_current_val_interval()  # as the loop does after every epoch
        at_interval = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
        return runner.val_loop is not None and loop.epoch >= loop.val_begin and at_interval


@contextmanager
def failures_explained(runner) -> Iterator[None]:
    """A write that fails says what is left to go on with."""
    try:
        yield
    except OSError as error:
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        last = f'the last good one is {pointer.read_text().strip()}' if pointer.is_file() else 'there is none yet'
        raise OSError(
            error.errno,
            f'{error.strerror or error}: a checkpoint could not be written, and training has ended. Those written before are whole; '
            f'{last}. Make room, and start again with --resume',
            error.filename,
        ) from error
