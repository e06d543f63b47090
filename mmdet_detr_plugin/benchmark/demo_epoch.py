"""Seconds of one training epoch of the shapes demo, as JSON.

python -m mmdet_detr_plugin.benchmark.demo_epoch plugin|mmdet cpu|cuda
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..config_files import config_path
from ..datasets.shapes import write_split
from .peers import mmdet_config


class Stopwatch(Hook):
    priority = 'LOWEST'

    def before_train_epoch(self, runner: Runner) -> None:
        self.start = time.perf_counter()

    def after_train_epoch(self, runner: Runner) -> None:
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    name, _ = sys.argv[1:]  # the device is what CUDA_VISIBLE_DEVICES leaves
    cfg = Config.fromfile(config_path('detr_r18-half_1xb4-10e_shapes'))
    with tempfile.TemporaryDirectory() as folder:
        write_split(Path(folder) / 'data', 0, 'train', 800)
        if name == 'mmdet':
            cfg.model = mmdet_config(cfg.model.to_dict())
        cfg.train_dataloader.dataset.data_root = f'{folder}/data/'
        cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
        cfg.default_hooks.checkpoint = None
        cfg.work_dir, cfg.log_level = f'{folder}/run', 'ERROR'
        runner = Runner.from_cfg(cfg)
        stopwatch = Stopwatch()
        runner.register_hook(stopwatch)
        runner.train()
        print(json.dumps(dict(seconds=stopwatch.seconds)))


if __name__ == '__main__':
    main()
