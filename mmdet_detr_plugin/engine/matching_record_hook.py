"""Which query finds which object, epoch by epoch."""

import json
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..random_state import preserved_generators
from ..registry import HOOKS

FILE = 'matching.jsonl'


@HOOKS.register_module()
class MatchingRecordHook(Hook):
    """After every epoch, writes the query that matching gives to each object of the first validation images.

    How much of it changes from epoch to epoch shows whether queries have found their roles (DN-DETR, Li et al. 2022, section 3.2). The
    training is not touched: its random states and the model's mode are as before. For plugin's ``DETR``, whose queries are the same in
    every image; needs a ``CocoMetric`` as ``val_evaluator``.

    Args:
        num_images: how many are looked at.
    """

    priority = 'LOW'

    def __init__(self, num_images: int = 50) -> None:
        self.num_images = num_images
        self.loader = self.truth = None

    def after_train_epoch(self, runner) -> None:
        if not is_main_process():
            return
        # the comparison's code needs pycocotools and all of mmdet, which other users of this package do not
        from ..comparison.inference import Truth, layer_outputs, matched_queries, ordered_loader

        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with preserved_generators():
            if self.loader is None:
                cfg: Config = runner.cfg
                self.loader = ordered_loader(cfg.val_dataloader, batch_size=1)
                self.truth = Truth.of_config(cfg, self.loader.dataset.metainfo, 'val')
            model.eval()
            queries = []
            for samples, logits, boxes in layer_outputs(model, islice(self.loader, self.num_images)):
                for matched in matched_queries(model, samples, logits[-1:], boxes[-1:], self.truth):
                    queries += matched[0].tolist()
            model.train()
        with open(Path(runner.work_dir) / FILE, 'a') as file:
            file.write(json.dumps(dict(epoch=runner.epoch + 1, queries=queries)) + '\n')


def matching_changes(work_dir: Path) -> list[dict]:
    """From a run's record: ``epoch`` and ``share``, of the objects whose query is another one than an epoch before; from 0 to 1."""
    path = work_dir / FILE
    if not path.is_file():
        return []
    records = {}
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # half a line, left by an interruption; the epoch is recorded again
            continue
        records[record['epoch']] = record['queries']
    changes = []
    for epoch in sorted(records):
        before, now = records.get(epoch - 1), records[epoch]
        if before is not None and now and len(before) == len(now):
            changes.append(dict(epoch=epoch, share=sum(a != b for a, b in zip(before, now)) / len(now)))
    return changes
