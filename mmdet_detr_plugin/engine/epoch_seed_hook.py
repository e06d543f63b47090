"""Random states that depend on the epoch and not on the past."""

import os
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils import deterministic

from ..files import sha256_of
from ..random_state import seed_generators
from ..registry import HOOKS

TRAINED_ON = 'training_annotations_sha256'  # in the message hub, and so in checkpoints
ITERATIONS = 'iterations_of_an_epoch'  # likewise
TRAINING_STREAM = 0  # apart from the samples' streams


def annotation_paths(dataset) -> list[Path]:
    """The local files that a data set's annotations come from, inside whatever wraps or joins it; none where there are none."""
    if not hasattr(dataset, 'ann_file'):
        inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
        return [path for part in inner if part is not None for path in annotation_paths(part)]
    path = Path(dataset.ann_file or '.')
    return [path] if path.is_file() else []


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Derives all random states anew at the start of every epoch, so that a resumed run draws what an uninterrupted one draws.

    The main process's generators (dropout, sampling of proposals) are seeded from (seed, epoch, rank); what a sample's augmentation draws
    depends on (seed, epoch, sample). Model-independent: any detector's config may name it in ``custom_hooks``.

    With ``randomness.deterministic=True`` it also completes what mmengine sets for operations that give the same bits in every run.

    Raises:
        ValueError: before training, when ``randomness`` has no seed, or one for each rank; the loop has no epochs; the training data set
            cannot be seeded; or the checkpoint that training resumes from was trained with another seed, batch size, number of processes
            or annotation file.
    """

    priority = 'HIGHEST'  # before anything draws

    def before_run(self, runner) -> None:
        self.configured = dict(runner._randomness_cfg)  # mmengine writes a resumed checkpoint's seed into it
        if self.configured.get('deterministic'):
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # without it torch refuses products of matrices on GPUs
            deterministic.fill_uninitialized_memory = False  # costs time; nothing here reads what it has not written
            # An operation of some other detector that has no such form is announced, instead of ending the training; fused attention
            # then adds gradients in any order on GPUs, so that models/transformer.py does without it.
            torch.use_deterministic_algorithms(True, warn_only=True)

    def before_train(self, runner) -> None:
        self._check_config(runner)
        self.seed = self.configured['seed']
        self._check_resumed(runner)
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if len(runner.train_dataloader) % counts:
            runner.logger.warning(
                f'{counts} iterations of accumulated gradients do not divide the {len(runner.train_dataloader)} of an epoch: a resumed run '
                'loses those that are pending at the end of an epoch, and differs from an uninterrupted one.'
            )

    def _check_config(self, runner) -> None:
        if self.configured.get('seed') is None:
            raise ValueError('EpochSeedHook needs a seed, and randomness.seed is not set; write randomness=dict(seed=0) in the config')
        if self.configured.get('diff_rank_seed'):
            raise ValueError(
                'randomness.diff_rank_seed must be False: EpochSeedHook gives every rank its own random state already, and the order of '
                'the data would depend on what the model drew'
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'EpochSeedHook needs a loop of epochs (train_cfg.type EpochBasedTrainLoop), got {type(runner.train_loop).__name__}; '
                'to train by iterations, remove the hook from custom_hooks; the run is then not repeatable after an interruption'
            )
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'sample_randomness'):
            raise ValueError(
                f'the training data set {type(dataset).__name__} cannot give every sample its own randomness. Wrap it: dataset=dict('
                "_delete_=True, type='mmdet_detr_plugin.SeededDataset', dataset=dict(...)); or derive its class from StrictCocoDataset"
            )

    def _check_resumed(self, runner) -> None:
        if runner.seed != self.seed:
            raise ValueError(
                f'the checkpoint to resume from was trained with the seed {runner.seed}, the config has randomness.seed={self.seed}; the '
                f'order of the data would change. Set randomness.seed={runner.seed}, or start a new run with load_from and without resume'
            )
        iters, info = len(runner.train_dataloader), runner.message_hub.runtime_info
        begun = runner.iter - runner.epoch * iters  # mmengine counts an epoch when its last iteration's checkpoint is written
        if begun and not (info.get(ITERATIONS) == iters and 0 < begun <= iters):
            raise ValueError(
                f'the checkpoint to resume from holds {runner.iter} iterations in {runner.epoch} epochs, this run has {iters} in each: the '
                'batch size, the number of processes or the data set has changed. Resume with those of the first start, or start a new run '
                'with load_from and without resume'
            )
        runner.message_hub.update_info(ITERATIONS, iters)
        if begun:
            runner.train_loop._iter -= begun
            runner.logger.warning(
                f'The checkpoint holds {begun} of {iters} iterations of epoch {runner.epoch + 1}, which begins anew: the weights have seen '
                'these images once more than those of an uninterrupted run. Checkpoints by epochs (by_epoch=True) avoid that.'
            )
        paths = annotation_paths(runner.train_dataloader.dataset)
        if not paths:
            return
        digest = ','.join(map(sha256_of, paths))
        if runner.iter and info.get(TRAINED_ON, digest) != digest:
            raise ValueError(
                f'{", ".join(map(str, paths))} is not the file that the checkpoint to resume from was trained on: its content has changed. '
                'Validation could hold images that were trained on. Resume with the file of the first start, or start a new run with '
                'load_from and without resume'
            )
        runner.message_hub.update_info(TRAINED_ON, digest)

    def before_train_epoch(self, runner) -> None:
        runner.train_dataloader.dataset.sample_randomness.set(self.seed, runner.epoch)
        self._seed_main_process(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == 0:  # again: a loader draws when it starts its workers, which is not in every epoch
            self._seed_main_process(runner)

    def _seed_main_process(self, runner) -> None:
        seed_generators(self.seed, TRAINING_STREAM, runner.epoch, get_rank(), accelerators=True)
