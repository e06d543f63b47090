"""mmdet's ``NumClassCheckHook`` for panoptic models too, whose configs in mmdet go without it."""

import mmdet.engine.hooks as mmdet_hooks
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..registry import HOOKS


@HOOKS.register_module()
class NumClassCheckHook(mmdet_hooks.NumClassCheckHook):
    """Stops before training and validation when a model's numbers of classes are not the data's.

    Of a model without parts that tell things from stuff, every ``num_classes`` must be the data's number of classes, as mmdet has it. Of a
    panoptic model, ``num_things_classes`` and ``num_stuff_classes`` of every part must be the data's; ``num_classes`` of a part without
    them must be the number of things in a ``roi_head``, and the sum of both elsewhere. Data without ``thing_classes`` has things alone.

    Raises:
        AssertionError: as mmdet's, for models without things and stuff.
        ValueError: for panoptic models.
    """

    def _check_head(self, runner: Runner, mode: str) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not any(hasattr(module, 'num_things_classes') for module in model.modules()):
            super()._check_head(runner, mode)
            return
        dataset = (runner.train_dataloader if mode == 'train' else runner.val_dataloader).dataset
        things, stuff = thing_and_stuff_counts(dataset.metainfo)
        for name, module in model.named_modules():
            for key, expected in expected_counts(name, module, things, stuff).items():
                if getattr(module, key) != expected:
                    raise ValueError(
                        f'{key} of {name or "the model"} ({type(module).__name__}) is {getattr(module, key)}, the {mode} '
                        f'data ({type(dataset).__name__}) needs {expected}: it has {things} classes of things and {stuff} of stuff. Set '
                        'it in the config of the model, or metainfo.classes of the data set.'
                    )


def thing_and_stuff_counts(metainfo: dict) -> tuple[int, int]:
    """How many classes a data set has."""
    classes = metainfo.get('classes') or ()
    things = metainfo.get('thing_classes', classes)
    return len(things), len(classes) - len(things)


def expected_counts(name: str, module: nn.Module, things: int, stuff: int) -> dict[str, int]:
    """What the attributes of a part of a panoptic model must be."""
    if hasattr(module, 'num_things_classes'):  # num_classes follows from these, in each part's own way
        return dict(num_things_classes=things, num_stuff_classes=stuff)
    if not hasattr(module, 'num_classes') or name.endswith('rpn_head'):
        return {}
    return dict(num_classes=things if name.startswith('roi_head') else things + stuff)
