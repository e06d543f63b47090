"""Optimisers that ``torch.compile`` can trace."""

from mmengine.hooks import Hook

from ..registry import HOOKS


@HOOKS.register_module()
class PlainParamGroupsHook(Hook):
    """Makes the optimiser's parameter groups plain dicts before training.

    mmengine leaves its own kind there wherever a config has ``paramwise_cfg``. With ``compile=True``, which compiles the whole training
    step, torch's compiler cannot trace that kind and stops. Model-independent.
    """

    def before_train(self, runner) -> None:
        wrapper = runner.optim_wrapper
        for single in wrapper.values() if hasattr(wrapper, 'values') else [wrapper]:
            single.optimizer.param_groups[:] = [dict(group.items()) for group in single.optimizer.param_groups]
