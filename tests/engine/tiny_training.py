"""A training run that takes a fraction of a second: a linear model with every kind of state that a checkpoint must carry."""

from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmdet_detr_plugin.datasets.sample_randomness import SampleRandomness


@DATASETS.register_module()
class TinyData(Dataset):
    """Samples that are drawn: what a model gets depends on the random state alone."""

    def __init__(self, seeded: bool = True, ann_file: str | None = None) -> None:
        self.ann_file = ann_file
        if seeded:
            self.sample_randomness = SampleRandomness()
            self.draw = self.sample_randomness.of
        else:
            self.draw = lambda index: torch.no_grad()

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> torch.Tensor:
        with self.draw(index):
            return torch.rand(3)


class TinyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, *inputs: torch.Tensor, mode: str):
        output = self.linear(self.dropout(torch.stack(inputs)))
        return dict(loss=output.square().mean()) if mode == 'loss' else [output.mean().item()]


class TinyMetric(BaseMetric):
    """Goes up and down over the epochs, so that there are epochs with and without a new best checkpoint."""

    scores = (0.2, 0.1, 0.5, 0.4, 0.6, 0.3)

    def __init__(self, runner_epoch) -> None:
        super().__init__(prefix='tiny')
        self.runner_epoch = runner_epoch

    def process(self, data_batch, data_samples) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict:
        return dict(score=self.scores[self.runner_epoch() - 1])


def tiny_runner(
    work_dir: Path, resume: bool = False, epochs: int = 4, checkpoint: dict | None = None, kind: type = Runner, **changes
) -> Runner:
    torch.manual_seed(3)
    runner = None
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(type='TinyData'))
    settings = dict(
        model=TinyModel(),
        work_dir=str(work_dir),
        experiment_name=f'{work_dir}_{tiny_runner.count}',
        train_dataloader=loader,
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='TinyData', seeded=False)),
        val_evaluator=Evaluator([TinyMetric(lambda: runner.epoch)]),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
            dict(type='MultiStepLR', milestones=[3]),
            dict(type='ReduceOnPlateauLR', monitor='tiny/score', rule='greater', patience=0, factor=0.5),
        ],
        default_hooks=dict(
            checkpoint=dict(
                type='mmdet_detr_plugin.SafeCheckpointHook', interval=1, max_keep_ckpts=1, save_best='tiny/score', rule='greater'
            )
            | (checkpoint or {})
        ),
        custom_hooks=[
            dict(type='mmdet_detr_plugin.EpochSeedHook'),
            dict(type='mmdet_detr_plugin.PlainCheckpointHook'),
            dict(type='EMAHook'),
        ],
        randomness=dict(seed=0),
        log_level='ERROR',
        resume=resume,
        default_scope='mmengine',
    )
    tiny_runner.count += 1  # mmengine keeps a message hub for each experiment name
    settings.update(changes)
    runner = kind(**settings)
    return runner


tiny_runner.count = 0
