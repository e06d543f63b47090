"""Detectors that do not predict from weights which a checkpoint should have brought and did not."""

from torch import nn

from ..checkpoints.conversion import TRAINING_AIDS


class RefusesRandomWeights(nn.Module):
    """Mixin; goes before ``BaseDetector`` among a class's bases.

    ``tools/test.py`` is guarded by ``CheckpointFitHook``. ``init_detector`` and ``DetInferencer`` run no hooks, load what fits by name and
    go on with a warning; so the model itself remembers which of its weights no checkpoint has brought, until it is trained. A model into
    which nothing was loaded is the user's own business.

    Raises:
        ValueError: when it is asked for predictions and weights are left over.
    """

    _never_loaded: frozenset[str] | None = None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        own = {name: value.shape for name, value in self.state_dict().items() if not name.endswith('num_batches_tracked')}
        missing = {
            name
            for name, shape in own.items()
            if not name.startswith(TRAINING_AIDS) and getattr(state_dict.get(prefix + name), 'shape', None) != shape
        }
        self._never_loaded = frozenset(missing if self._never_loaded is None else missing & self._never_loaded)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, inputs, data_samples=None, mode: str = 'tensor'):
        """As mmdet's detectors': losses, predictions or the outputs of the network."""
        if self._never_loaded:
            if mode == 'loss':  # they learn
                self._never_loaded = None
            elif mode == 'predict':
                self._refuse()
        return super().forward(inputs, data_samples, mode)

    def _refuse(self) -> None:
        names = sorted(self._never_loaded)
        shown = ', '.join(names[:3]) + (' ...' if len(names) > 3 else '')
        raise ValueError(
            f'{type(self).__name__} does not predict from random weights: {len(names)} of its {len(self.state_dict())} weights were not in '
            f'the checkpoint, or in another shape: {shown}. Expected a checkpoint that was '
            "trained with this config; another implementation's weights are converted by tools/convert_checkpoint.py"
        )
