"""Example images follow their rule."""

import numpy as np
import pytest

from mmdet_detr_plugin.comparison.analysis.examples import choose_examples, image_f1
from mmdet_detr_plugin.comparison.analysis.matches import match

from .builders import annotations, detections, random_annotations, random_detections

BOX, FAR = (0, 0, 100, 100), (120, 120, 50, 50)


@pytest.fixture
def truth() -> dict:
    """Image 1: two objects; 2: one; 3: none; 4: one and a crowd."""
    return annotations([(1, 1, BOX), (1, 2, FAR), (2, 1, BOX), (4, 1, BOX), (4, 2, FAR, dict(iscrowd=1))], images=4)


def by_name(groups) -> dict[str, list[int]]:
    return {group.group: group.image_ids for group in groups}


def test_f1_of_images_by_hand(truth):
    found = [(1, 1, BOX, 0.9), (2, 1, BOX, 0.9), (2, 1, BOX, 0.8), (3, 1, BOX, 0.2), (4, 1, BOX, 0.9), (4, 2, (130, 130, 9, 9), 0.9)]
    run = match(truth, detections(*found))
    assert image_f1(run, 0.5) == pytest.approx([2 / 3, 2 / 3, 1.0, 1.0])
    assert image_f1(run, 0.85) == pytest.approx([2 / 3, 1.0, 1.0, 1.0])
    assert image_f1(run, 0.1) == pytest.approx([2 / 3, 2 / 3, 0.0, 1.0])


def test_groups_of_two_models(truth):
    good = [(1, 1, BOX, 0.9), (1, 2, FAR, 0.9), (2, 1, BOX, 0.9)]
    runs = dict(
        a=match(truth, detections(*good, (4, 2, BOX, 0.9))),
        b=match(truth, detections((1, 1, BOX, 0.9), (2, 1, BOX, 0.9), (2, 2, BOX, 0.9), (3, 1, BOX, 0.4))),
    )
    groups = by_name(choose_examples(runs, dict(a=0.5, b=0.5)))
    assert groups == {'only a right': [1, 2], 'only b right': [], 'both right': [3], 'both wrong': [4]}
    assert by_name(choose_examples(runs, dict(a=0.5, b=0.3)))['only a right'] == [3, 1, 2]  # claiming what is not there is wrong
    assert by_name(choose_examples(runs, dict(a=0.5, b=0.3), most=1))['only a right'] == [3]


def test_groups_of_three_models_and_their_order():
    truth = annotations([(1, 1, BOX), (2, 1, BOX), (3, 1, BOX), (3, 2, FAR), (4, 1, BOX), (5, 1, BOX), (5, 2, FAR)], images=6)
    every = [(item['image_id'], item['category_id'], item['bbox'], 0.9) for item in truth['annotations']]
    runs = dict(
        a=match(truth, detections(*[item for item in every if item[0] in (1, 2, 3, 5)])),
        b=match(truth, detections(*[item for item in every if item[0] == 3], (5, 1, BOX, 0.9))),
        c=match(truth, detections(*[item for item in every if item[0] == 3], (6, 1, BOX, 0.9))),
    )
    groups = choose_examples(runs, dict.fromkeys('abc', 0.5))
    assert by_name(groups) == {
        'only a right': [1, 2, 5],  # of image 5, b has found one of two
        'only b right': [],
        'only c right': [],
        'all right': [3],
        'all wrong': [4],
    }
    assert by_name(choose_examples(dict.fromkeys('xy', runs['c']), dict.fromkeys('xy', 0.5)))['both wrong'] == [5, 1, 2, 4]
    assert all('IoU at least 0.5' in group.rule and 'smallest id' in group.rule for group in groups)


def test_order_within_both_right_and_both_wrong():
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 2, FAR), (3, 1, BOX), (3, 2, FAR), (4, 1, BOX), (5, 1, BOX)]
    truth = annotations(objects, images=5)
    run = match(truth, detections((1, 1, BOX, 0.9), (2, 1, BOX, 0.9), (2, 2, FAR, 0.9), (3, 1, BOX, 0.9), (4, 2, FAR, 0.9)))
    groups = by_name(choose_examples(dict(a=run, b=run), dict(a=0.5, b=0.5)))
    assert groups['both right'] == [2, 1]  # two objects before one
    assert groups['both wrong'] == [4, 5, 3]  # in image 3 one of two is found


def test_choice_does_not_depend_on_the_order_of_files_and_groups_do_not_overlap():
    rng = np.random.default_rng(4)
    truth = random_annotations(rng, images=60, most=2)
    found = {name: random_detections(rng, truth, noise=0.05, clutter=1) for name in 'ab'}
    chosen = [
        by_name(choose_examples({name: match(content, items) for name, items in results.items()}, dict(a=0.4, b=0.4), most=60))
        for content, results in (
            (truth, found),
            ({key: items[::-1] for key, items in truth.items()}, {name: items[::-1] for name, items in found.items()}),
        )
    ]
    assert chosen[0] == chosen[1]
    assert all(chosen[0].values())
    together = [image_id for image_ids in chosen[0].values() for image_id in image_ids]
    assert sorted(together) == sorted(image['id'] for image in truth['images'])  # two models: every image is in one group


def test_no_detections_and_no_images(truth):
    groups = choose_examples({name: match(truth, []) for name in 'ab'}, dict(a=1.0, b=1.0))
    assert by_name(groups) == {'only a right': [], 'only b right': [], 'both right': [3], 'both wrong': [1, 2, 4]}
    empty = match(dict(images=[], categories=[], annotations=[]), [])
    assert set(map(tuple, by_name(choose_examples(dict(a=empty, b=empty), dict(a=1.0, b=1.0))).values())) == {()}


def test_models_of_other_images_are_refused(truth):
    with pytest.raises(ValueError, match=r"two or more models on the same images, got \['a'\]"):
        choose_examples(dict(a=match(truth, [])), dict(a=0.5))
    with pytest.raises(ValueError, match='match all with the same annotation file'):
        choose_examples(dict(a=match(truth, []), b=match(annotations([], images=4), [])), dict(a=0.5, b=0.5))
