"""Whether the images can tell two models apart: the paired bootstrap over images.

Percentile interval: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .matches import Matches

LEVEL = 0.95
FEWEST_RESAMPLES = 100  # the interval's ends are the 2.5th and 97.5th of a hundred: too few would be noise
FEW_IMAGES = 30
CHUNK = 32  # resamples at a time: bounds the memory (4 bytes x detections of a class), and is fast


@dataclass(frozen=True)
class PairedDifference:
    """Model ``a`` minus model ``b`` in one of COCO's figures, each the mean over its trainings, in [-1, 1].

    Attributes:
        difference: on the images as they are; None where no object is to be found.
        low, high: ends of the 95 % interval over resampled images.
        resamples: how many of them had an object to be found.
        distinguishable: whether 0 lies outside of the interval.
        text: the same in plain words, with what the interval does not cover.
    """

    a: str
    b: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    resamples: int
    distinguishable: bool
    text: str


def compare_pairs(
    models: Mapping[str, Sequence[Matches]], metric: str = 'AP', resamples: int = 2000, seed: int = 0
) -> list[PairedDifference]:
    """Every pair of models on the same resampled images; each model is resampled once, however many pairs it is in.

    Intervals are for one pair each: among twenty pairs of equal models, one is expected to look distinguishable.

    Args:
        models: name -> its runs.
        metric: one of ``METRICS``.

    Raises:
        ValueError: for a model without runs, runs of other images or objects, or too few resamples.
    """
    _check(models, resamples)
    actual = {name: float(np.mean([run.metric(metric)[0] for run in runs])) for name, runs in models.items()}
    resampled = {name: resampled_metric(runs, metric, resamples, seed) for name, runs in models.items()}
    return [_difference(models, a, b, metric, actual[a] - actual[b], resampled[a] - resampled[b]) for a, b in combinations(models, 2)]


def resampled_metric(runs: Sequence[Matches], metric: str = 'AP', resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """(resamples,) mean over the runs, each time on as many images drawn with replacement; NaN where no object is drawn.

    The same ``seed`` and number of images give the same draws, whatever the model.
    """
    generator, num_images = np.random.default_rng(seed), runs[0].num_images
    if not num_images:
        return np.full(resamples, np.nan)
    values = []
    for start in range(0, resamples, CHUNK):
        drawn = [generator.integers(num_images, size=num_images) for _ in range(min(CHUNK, resamples - start))]
        weights = np.stack([np.bincount(images, minlength=num_images) for images in drawn], axis=1).astype(np.int32)
        values.append(np.mean([run.metric(metric, weights) for run in runs], axis=0))
    return np.concatenate(values)


def _check(models: Mapping[str, Sequence[Matches]], resamples: int) -> None:
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(f'a 95 % interval needs at least {FEWEST_RESAMPLES} resamples, got {resamples}')
    every = [(name, run) for name, runs in models.items() for run in runs]
    for name, runs in models.items():
        if not runs:
            raise ValueError(f'{name} has no run; leave it out until one is done')
    for name, run in every[1:]:
        if not run.annotations.is_same(every[0][1].annotations):
            raise ValueError(
                f'{name} was evaluated on other images or objects than {every[0][0]} ({run.num_images} and '
                f'{every[0][1].num_images} images); a paired comparison needs the same annotation file'
            )


def _difference(
    models: Mapping[str, Sequence[Matches]], a: str, b: str, metric: str, difference: float, resampled: np.ndarray
) -> PairedDifference:
    resampled = resampled[~np.isnan(resampled)]
    names = dict(a=a, b=b, metric=metric, resamples=len(resampled))
    if np.isnan(difference) or not len(resampled):
        text = f'{metric} is not defined on these images: they hold no object that counts for it.'
        return PairedDifference(**names, difference=None, low=None, high=None, distinguishable=False, text=text)
    low, high = np.percentile(resampled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    distinguishable = low > 0 or high < 0
    text = _sentence((models[a], models[b]), a, b, metric, difference, low, high)
    return PairedDifference(**names, difference=difference, low=low, high=high, distinguishable=distinguishable, text=text)


def _sentence(runs: tuple, a: str, b: str, metric: str, difference: float, low: float, high: float) -> str:
    num_images, trainings = runs[0][0].num_images, [len(each) for each in runs]
    images = 'this one image' if num_images == 1 else f'these {num_images} images'
    interval = f'{difference:+.3f} {metric}, 95 % interval {low:+.3f} to {high:+.3f}'
    if low > 0 or high < 0:
        better, worse = (a, b) if low > 0 else (b, a)
        text = f'On {images} {better} is better than {worse}: {a} minus {b} is {interval}, which does not cover 0.'
    else:
        text = f'On {images} the data cannot tell {a} and {b} apart: {a} minus {b} is {interval}, which covers 0.'
        text += ' That does not show that they are equal.'
    if trainings == [1, 1]:
        text += ' The interval is over images, for one training of each model: another seed may change the result.'
    else:
        text += (
            f' The interval is over images, not over trainings: it is for the mean of the {trainings[0]} and {trainings[1]} that were run.'
        )
    if num_images < FEW_IMAGES:
        text += f' With fewer than {FEW_IMAGES} images it is itself rough, and tends to be too narrow.'
    return text
