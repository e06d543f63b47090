"""Random states that depend on the epoch and not on the past."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..random_state import seed_generators
from ..registry import HOOKS

TRAINING_STREAM = 0  # apart from the samples' streams


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Derives all random states anew at the start of every epoch, so that a resumed run draws what an uninterrupted one draws.

    The main process's generators (dropout, sampling of proposals) are seeded from (seed, epoch, rank); what a sample's augmentation draws
    depends on (seed, epoch, sample). Model-independent: any detector's config may name it in ``custom_hooks``.

    Raises:
        ValueError: before training, when ``randomness`` has no seed, or one for each rank; the loop has no epochs; the training data set
            cannot be seeded; or the checkpoint that training resumes from was trained with another seed.
    """

    priority = 'HIGHEST'  # before anything draws

    def before_run(self, runner) -> None:
        randomness = runner.cfg.get('randomness', {})
        self.seed = randomness.get('seed')
        if self.seed is None:
            raise ValueError('EpochSeedHook needs a seed, and randomness.seed is not set; write randomness=dict(seed=0) in the config')
        if randomness.get('diff_rank_seed'):
            raise ValueError(
                'randomness.diff_rank_seed must be False: EpochSeedHook gives every rank its own random state already, and the order of '
                'the data would depend on what the model drew'
            )

    def before_train(self, runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'EpochSeedHook needs a loop of epochs (train_cfg.type EpochBasedTrainLoop), got {type(runner.train_loop).__name__}; '
                'to train by iterations, remove the hook from custom_hooks; the run is then not repeatable after an interruption'
            )
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'sample_randomness'):
            raise ValueError(
                f'the training data set {type(dataset).__name__} cannot give every sample its own randomness; wrap it: '
                "dataset=dict(type='mmdet_detr_plugin.SeededDataset', dataset=...)"
            )
        if runner.seed != self.seed:  # mmengine took over the checkpoint's
            raise ValueError(
                f'the checkpoint to resume from was trained with the seed {runner.seed}, the config has randomness.seed={self.seed}; the '
                f'order of the data would change. Set randomness.seed={runner.seed}, or start a new run with load_from and without resume'
            )

    def before_train_epoch(self, runner) -> None:
        runner.train_dataloader.dataset.sample_randomness.set(self.seed, runner.epoch)
        self._seed_main_process(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == 0:  # again: a loader draws when it starts its workers, which is not in every epoch
            self._seed_main_process(runner)

    def _seed_main_process(self, runner) -> None:
        seed_generators(self.seed, TRAINING_STREAM, runner.epoch, get_rank(), accelerators=True)
