"""Pictures of what a model finds and attends to, while it is trained."""

from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from ..random_state import preserved_generators
from ..registry import HOOKS


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """After epochs, draws the first validation images into the visualiser's back-ends (files, TensorBoard, W&B: as the config has them).

    Of any detector, its detections; of the plugin's DETR and LocalDETR also the boxes of all queries, and the last decoder layer's
    cross-attention of the best detections (LocalDETR: where it looks).

    The training is not touched: its random states and the model's mode are as before. Rank 0 draws alone. Added to a config::

        custom_hooks = _base_.custom_hooks + [dict(type='mmdet_detr_plugin.AttentionVisualizationHook', interval=5)]
        visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])

    Pictures are named ``<number>-<image>-detections``, ``-queries`` and ``-attention``; their step is the epoch.

    Args:
        interval: epochs between pictures.
        num_images: how many images are drawn.
        score_thr: detections from this score on are shown.
        top: but so many at least, the best ones.

    Raises:
        ValueError: for an interval or a number below 1, or, when training starts, a config without validation data.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 1, num_images: int = 4, score_thr: float = 0.5, top: int = 4) -> None:
        if min(interval, num_images, top) < 1:
            raise ValueError(f'interval, num_images and top must be at least 1, got {interval}, {num_images} and {top}')
        self.interval, self.num_images, self.score_thr, self.top = interval, num_images, score_thr, top
        self.loader = None

    def before_train(self, runner) -> None:
        if not runner.cfg.get('val_dataloader'):
            raise ValueError('AttentionVisualizationHook draws validation images, but the config has no val_dataloader; name one')

    def after_train_epoch(self, runner) -> None:
        if not is_main_process() or not self.every_n_epochs(runner, self.interval):
            return
        from ..comparison.inference import ordered_loader  # needs pycocotools, which other users of this package do not

        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with preserved_generators(), evaluated(model), torch.no_grad():
            if self.loader is None:
                self.loader = ordered_loader(runner.cfg.val_dataloader, batch_size=1)
            for number, batch in enumerate(islice(self.loader, self.num_images)):
                self._draw(runner, model, number, batch)

    def _draw(self, runner, model: nn.Module, number: int, batch: dict) -> None:
        # matplotlib and mmdet's models, for those alone who use this hook
        from ..prediction.inputs import read_frames
        from ..visualization.attention import has_attention, record_attention
        from ..visualization.panels import rgb_of
        from ..visualization.training_figures import training_figures

        with record_attention(model) if has_attention(model) else nullcontext() as record:
            (sample,) = model.val_step(batch)
        (frame,) = read_frames(Path(sample.img_path))
        name, classes = Path(sample.img_path).stem, self.loader.dataset.metainfo['classes']
        try:
            if frame.problem is not None:
                raise ValueError(f'the image {frame.problem}')
            pixels = frame.pixels[..., ::-1].copy()
            for kind, figure in training_figures(model, record, sample, pixels, name, classes, self.score_thr, self.top):
                runner.visualizer.add_image(f'{number}-{name}-{kind}', rgb_of(figure), step=runner.epoch + 1)
        except ValueError as error:  # no picture is worth the end of a training
            runner.logger.warning(f'AttentionVisualizationHook leaves out {frame.name}: {error}')


@contextmanager
def evaluated(model: nn.Module):
    """The model in evaluation mode; afterwards each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
