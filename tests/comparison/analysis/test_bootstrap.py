"""The paired bootstrap finds what is there, and no more."""

import numpy as np
import pytest

from mmdet_detr_plugin.comparison.analysis import bootstrap
from mmdet_detr_plugin.comparison.analysis.bootstrap import compare_pairs, resampled_metric
from mmdet_detr_plugin.comparison.analysis.matches import match

from .builders import annotations, detections, random_annotations, random_detections


def random_model(truth: dict, seed: int, noise: float = 0.15):
    return match(truth, random_detections(np.random.default_rng(seed), truth, noise=noise))


@pytest.fixture(scope='module')
def truth() -> dict:
    return random_annotations(np.random.default_rng(5), images=60)


def test_identical_models_differ_by_exactly_nothing(truth):
    run = random_model(truth, 1)
    (pair,) = compare_pairs({'a': [run], 'b': [random_model(truth, 1)]}, resamples=200)
    assert (pair.difference, pair.low, pair.high, pair.distinguishable) == (0.0, 0.0, 0.0, False)
    assert 'On these 60 images the data cannot tell a and b apart' in pair.text


def test_planted_difference_is_found_with_its_sign(truth):
    good, bad = random_model(truth, 1, noise=0.05), random_model(truth, 2, noise=0.3)
    first, second = (compare_pairs(models, resamples=300)[0] for models in ({'a': [good], 'b': [bad]}, {'b': [bad], 'a': [good]}))
    assert first.low > 0 and first.distinguishable
    assert first.difference == pytest.approx(good.metrics()['AP'] - bad.metrics()['AP'])
    assert first.text.startswith('On these 60 images a is better than b: a minus b is +')
    assert (second.difference, second.low, second.high) == pytest.approx((-first.difference, -first.high, -first.low))
    assert second.text.startswith('On these 60 images a is better than b: b minus a is -')


def test_chance_is_not_taken_for_a_difference(truth):
    (pair,) = compare_pairs({'a': [random_model(truth, 1)], 'b': [random_model(truth, 2)]}, resamples=300)
    assert pair.difference != 0 and pair.low < 0 < pair.high and not pair.distinguishable
    assert 'cannot tell a and b apart' in pair.text


def test_runs_are_averaged(truth):
    runs = [random_model(truth, seed) for seed in range(3)]
    other = random_model(truth, 9)
    (pair,) = compare_pairs({'a': runs, 'b': [other]}, metric='AP50', resamples=100)
    assert pair.difference == pytest.approx(np.mean([run.metrics()['AP50'] for run in runs]) - other.metrics()['AP50'])
    alone = [resampled_metric([run], 'AP50', resamples=100) for run in runs]
    assert resampled_metric(runs, 'AP50', resamples=100) == pytest.approx(np.mean(alone, axis=0))


def test_all_pairs_are_compared_on_the_same_draws(truth):
    models = {name: [random_model(truth, seed)] for seed, name in enumerate('abc')}
    pairs = compare_pairs(models, resamples=150)
    assert [(pair.a, pair.b) for pair in pairs] == [('a', 'b'), ('a', 'c'), ('b', 'c')]
    assert compare_pairs({name: models[name] for name in 'bc'}, resamples=150) == [pairs[2]]


def test_seed_decides_the_draws_and_chunks_do_not(truth, monkeypatch):
    run = [random_model(truth, 3)]
    values = resampled_metric(run, resamples=110, seed=4)
    assert np.array_equal(values, resampled_metric(run, resamples=110, seed=4))
    assert not np.array_equal(values, resampled_metric(run, resamples=110, seed=5))
    monkeypatch.setattr(bootstrap, 'CHUNK', 7)
    assert np.array_equal(values, resampled_metric(run, resamples=110, seed=4))


def test_draws_equal_a_plain_bootstrap(truth):
    run, rng = random_model(truth, 3), np.random.default_rng(8)
    expected = [run.metric('AP', np.bincount(rng.integers(60, size=60), minlength=60)[:, None])[0] for _ in range(40)]
    assert resampled_metric([run], resamples=40, seed=8).tolist() == expected


def found_share(rng: np.random.Generator, truth: dict, share: float) -> list[dict]:
    """Each object is found exactly, or not at all; nothing else is claimed, so AP is nearly the share that is found."""
    found = [(item['image_id'], 1, tuple(item['bbox']), 0.9) for item in truth['annotations'] if rng.random() < share]
    return detections(*found)


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng, covered, trials = np.random.default_rng(0), 0, 60
    truth = annotations([(image, 1, (0, 0, 50, 50)) for image in range(1, 61)], images=60, classes=1)
    for trial in range(trials):
        models = {name: [match(truth, found_share(rng, truth, share))] for name, share in (('a', 0.7), ('b', 0.5))}
        (pair,) = compare_pairs(models, metric='AP50', resamples=200, seed=trial)
        covered += pair.low <= 0.2 <= pair.high
    assert 51 <= covered < trials  # of 60 intervals of 95 %, at least 51 cover with a probability above 0.999


def test_text_says_what_the_interval_does_not_cover(truth):
    runs = [random_model(truth, seed) for seed in range(3)]
    (single,) = compare_pairs({'a': runs[:1], 'b': runs[1:2]}, resamples=100)
    assert 'for one training of each model: another seed may change the result.' in single.text
    (several,) = compare_pairs({'a': runs[:2], 'b': runs[2:]}, resamples=100)
    assert 'not over trainings: it is for the mean of the 2 and 1 that were run.' in several.text
    assert 'too narrow' not in several.text
    few = random_annotations(np.random.default_rng(0), images=10)
    (pair,) = compare_pairs({'a': [random_model(few, 1)], 'b': [random_model(few, 2)]}, resamples=100)
    assert 'With fewer than 30 images it is itself rough, and tends to be too narrow.' in pair.text


def test_no_detections_no_objects_no_images():
    truth = annotations([(1, 1, (0, 0, 20, 20))], images=2)
    (pair,) = compare_pairs({'a': [match(truth, [])], 'b': [match(truth, [])]}, resamples=200)
    assert (pair.difference, pair.low, pair.high) == (0.0, 0.0, 0.0)
    assert 100 < pair.resamples < 200  # a quarter of the draws has the image without objects twice
    (undefined,) = compare_pairs({'a': [match(truth, [])], 'b': [match(truth, [])]}, metric='AP L', resamples=200)
    assert (undefined.difference, undefined.low, undefined.high, undefined.resamples, undefined.distinguishable) == (
        None,
        None,
        None,
        0,
        False,
    )
    assert undefined.text.startswith('AP L is not defined on these images')
    empty = match(dict(images=[], categories=[], annotations=[]), [])
    assert compare_pairs({'a': [empty], 'b': [empty]}, resamples=100)[0].difference is None


def test_mistakes_are_named(truth):
    run = random_model(truth, 0)
    with pytest.raises(ValueError, match='needs at least 100 resamples, got 10'):
        compare_pairs({'a': [run], 'b': [run]}, resamples=10)
    with pytest.raises(ValueError, match='b has no run; leave it out'):
        compare_pairs({'a': [run], 'b': []})
    other = random_annotations(np.random.default_rng(6), images=20)
    with pytest.raises(ValueError, match=r'b was evaluated on other images or objects than a \(20 and 60 images\).*same annotation file'):
        compare_pairs({'a': [run], 'b': [random_model(other, 0)]})
