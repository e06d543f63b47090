"""Accuracy by class."""

from collections.abc import Sequence

import numpy as np

from .matches import Matches


def by_class(runs: Sequence[Matches]) -> list[dict]:
    """``name``, ``objects`` (without crowds), ``AP`` and ``AP50`` (mean over the runs; None without objects), in order of category ids."""
    values = {name: np.mean([run.class_metric(name)[:, 0] for run in runs], axis=0).tolist() for name in ('AP', 'AP50')}
    rows = zip(runs[0].annotations.class_names, runs[0].num_objects.tolist(), values['AP'], values['AP50'], strict=True)
    return [dict(name=name, objects=count, AP=ap if count else None, AP50=ap50 if count else None) for name, count, ap, ap50 in rows]
