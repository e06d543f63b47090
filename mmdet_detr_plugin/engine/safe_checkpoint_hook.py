"""Checkpoints that survive a kill at any moment.

mmengine 0.10.7 deletes old checkpoints before it has written the new one, writes in place, and forgets a validation that was interrupted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook

from ..registry import HOOKS
from .atomic_local_backend import write_atomically

LAST_CHECKPOINT = 'last_checkpoint'  # mmengine's name: where resuming starts
LAST_VALIDATED = 'last_validated'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with its arguments and file names, in an order in which nothing can be lost.

    New checkpoints and the pointer ``last_checkpoint`` are written to temporary files and renamed; what they replace is deleted after that.
    A validation that an interruption has cut off is made up for when training resumes, so that the best checkpoint is the uninterrupted
    run's: the epoch of the last complete one stands in ``last_validated``.

    Other storage than local files is written through its own backend, as mmengine does.

    Raises:
        ValueError: before training, when not all processes resume from the same epoch.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        is_local = '://' not in (self.out_dir or '')
        if is_local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='mmdet_detr_plugin.AtomicLocalBackend')

    def before_train(self, runner) -> None:
        epochs = all_gather_object(runner.epoch)
        if len(set(epochs)) > 1:
            raise ValueError(
                f'the processes start after different epochs, by rank: {epochs}. All must find the same checkpoint: put work_dir '
                f'({runner.work_dir}) on a disk that all machines share, or copy it to each'
            )
        super().before_train(runner)  # deletes what a kill has left beyond max_keep_ckpts
        self._storage = self.file_backend
        self._remove(set(runner.message_hub.runtime_info.get('outdated_ckpts', [])) - self._best_paths())
        if runner.epoch == 0:
            if is_main_process():
                (Path(runner.work_dir) / LAST_VALIDATED).unlink(missing_ok=True)  # of an earlier run in this folder
            return
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        if self.by_epoch and self._validation_is_due(runner):
            runner.logger.info(f'The validation after epoch {runner.epoch} was interrupted; it is done now.')
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics) -> None:
        super().after_val_epoch(runner, metrics)
        if is_main_process() and self.by_epoch:
            write_atomically(str(runner.epoch).encode(), Path(runner.work_dir) / LAST_VALIDATED)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            # The new file also names the outdated one: killed before deleting it, the resumed run finds it in its list.
            runner.message_hub.update_info('keep_ckpt_ids', outdated + list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(self.last_ckpt.encode(), Path(runner.work_dir) / LAST_CHECKPOINT)
        self._remove({self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)) for old in outdated})

    def _save_best_checkpoint(self, runner, metrics) -> None:
        outdated = self._best_paths()
        runner.message_hub.update_info('outdated_ckpts', sorted(outdated))
        with self._nothing_removed():
            super()._save_best_checkpoint(runner, metrics)
        self._remove(outdated - self._best_paths())

    def _best_paths(self) -> set[str]:
        if not self.save_best:
            return set()
        paths = self.best_ckpt_path_dict.values() if hasattr(self, 'best_ckpt_path_dict') else [self.best_ckpt_path]
        return {path for path in paths if path}

    @contextmanager
    def _nothing_removed(self) -> Iterator[None]:
        """mmengine deletes the former best checkpoint first; here it finds no file to delete."""
        self.file_backend = _Unremovable(self._storage)
        try:
            yield
        finally:
            self.file_backend = self._storage

    def _remove(self, paths: set[str]) -> None:
        if is_main_process():
            for path in paths:
                if self._storage.isfile(path):
                    self._storage.remove(path)
                elif self._storage.isdir(path):  # deepspeed
                    self._storage.rmtree(path)

    @staticmethod
    def _validation_is_due(runner) -> bool:
        loop = runner.train_loop
        loop._decide_current_val_interval()  # as the loop does after every epoch
        due = loop.epoch >= loop.val_begin and (loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs)
        if runner.val_loop is None or not due:
            return False
        path = Path(runner.work_dir) / LAST_VALIDATED
        done = [path.is_file() and path.read_text() == str(runner.epoch)]
        broadcast_object_list(done)  # the others may be on machines that do not see the file
        return not done[0]


class _Unremovable:
    def __init__(self, backend) -> None:
        self.join_path = backend.join_path

    def isfile(self, path) -> bool:
        return False

    isdir = isfile
