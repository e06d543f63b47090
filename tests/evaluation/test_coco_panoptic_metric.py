"""PQ of whole data sets, in one and several processes, its result files, and what is said about predictions that do not fit."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from mmdet_detr_plugin.datasets.panoptic.segment_ids import decode_png
from mmdet_detr_plugin.datasets.shapes import CLASSES as SHAPES
from mmdet_detr_plugin.datasets.shapes import STUFF_CLASSES

from ..datasets.panoptic.builders import CLASSES, ids_of, segment, write_dataset

FIRST = ids_of("""
    1 1 1 2
    3 3 3 0
""")
SECOND = ids_of("""
    4 4 4 4
    4 4 3 3
""")
SEGMENTS = [
    [segment(1, 'cat', FIRST), segment(2, 'dog', FIRST, iscrowd=1), segment(3, 'sky', FIRST)],
    [segment(4, 'dog', SECOND), segment(3, 'grass', SECOND)],
]
CAT, DOG, GRASS, SKY, NOTHING = 1000, 1001, 2, 3, 4


@pytest.fixture
def root(tmp_path):
    return write_dataset(tmp_path, [FIRST, SECOND], SEGMENTS)


def build(root, classes=CLASSES, **changes):
    config = dict(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'segments')) | changes
    metric = METRICS.build(dict(type='mmdet_detr_plugin.CocoPanopticMetric', **config))
    metric.dataset_meta = dict(classes=classes)
    return metric


def sample(image_id, label_map) -> dict:
    seg = dict(sem_seg=torch.as_tensor(np.asarray(label_map), dtype=torch.int32)[None])
    return dict(img_id=image_id, img_path=f'images/i{image_id}.png', pred_panoptic_seg=seg)


def evaluated(metric, samples: list[dict]) -> dict[str, float]:
    for one in samples:
        metric.process({}, [copy.deepcopy(one)])
    return metric.evaluate(len(samples))


PREDICTED = [
    # cat: 2 of 3 pixels; sky whole, with the void pixel; the dog is the crowd's
    sample(1, [[CAT, CAT, NOTHING, DOG], [SKY, SKY, SKY, SKY]]),
    # dog: 4 of 7 pixels; no grass; another cat
    sample(2, [[DOG, DOG, DOG, DOG], [SKY, CAT, DOG, CAT]]),
]
EXPECTED = {  # in percent; grass is missed, sky and cat have a false positive each
    'PQ': (4 / 9 + 4 / 7 + 0 + 2 / 3) / 4,
    'SQ': (2 / 3 + 4 / 7 + 0 + 1) / 4,
    'RQ': (2 / 3 + 1 + 0 + 2 / 3) / 4,
    'PQ_th': (4 / 9 + 4 / 7) / 2,
    'SQ_th': (2 / 3 + 4 / 7) / 2,
    'RQ_th': (2 / 3 + 1) / 2,
    'PQ_st': 1 / 3,
    'SQ_st': 1 / 2,
    'RQ_st': 1 / 3,
}


def test_numbers_and_names_are_those_computed_by_hand(root):
    assert evaluated(build(root), PREDICTED) == pytest.approx({f'coco_panoptic/{key}': 100 * value for key, value in EXPECTED.items()})


def test_one_image_for_each_rank_gives_what_one_process_gives(root):
    ranks = [build(root), build(root)]
    for metric, one in zip(ranks, PREDICTED, strict=True):
        metric.process({}, [one])
    assert ranks[0].compute_metrics(ranks[0].results + ranks[1].results) == pytest.approx({k: 100 * v for k, v in EXPECTED.items()})


def test_only_classes_that_occur_are_averaged(root):
    perfect = evaluated(build(root), [sample(2, [[DOG] * 4, [DOG, DOG, GRASS, GRASS]])])
    assert set(perfect.values()) == {100.0}
    none = evaluated(build(root), [sample(1, np.full((2, 4), NOTHING))])
    assert none['coco_panoptic/PQ'] == none['coco_panoptic/PQ_th'] == none['coco_panoptic/PQ_st'] == 0
    stuff_alone = [dict(id=one, name=str(one), isthing=0) for one in (10, 11, 12, 13)]
    content = json.loads((root / 'panoptic.json').read_text())
    (root / 'panoptic.json').write_text(json.dumps(content | dict(categories=stuff_alone)))
    result = evaluated(build(root, classes=('10', '11', '12', '13')), [sample(2, [[1] * 4, [1, 1, 2, 2]])])
    assert result['coco_panoptic/PQ_st'] == 100 and math.isnan(result['coco_panoptic/PQ_th'])


def test_ignore_index_of_a_model_is_void(root):
    predicted = [sample(1, [[CAT, CAT, 255, DOG], [SKY, SKY, SKY, SKY]]), PREDICTED[1]]
    predicted[0]['pred_panoptic_seg']['ignore_index'] = 255
    assert evaluated(build(root), predicted)['coco_panoptic/PQ'] == pytest.approx(100 * EXPECTED['PQ'])


def read_back(folder, categories: dict) -> list[dict]:
    """Predictions from result files."""
    samples = []
    for annotation in json.loads((folder / 'out.panoptic.json').read_text())['annotations']:
        ids = decode_png((folder / 'out.panoptic' / annotation['file_name']).read_bytes())
        label_map = np.full(ids.shape, NOTHING)
        for number, one in enumerate(annotation['segments_info'], start=1):
            assert one['area'] == (ids == one['id']).sum() > 0
            label = categories[one['category_id']]
            label_map[ids == one['id']] = label + (1000 * number if label < 2 else 0)
        samples.append(sample(annotation['image_id'], label_map))
    return samples


def test_result_files_hold_the_predictions(root):
    result = evaluated(build(root, outfile_prefix=str(root / 'out')), PREDICTED)
    again = read_back(root, {10: 0, 11: 1, 12: 2, 13: 3})
    assert [one['img_id'] for one in again] == [1, 2]
    assert evaluated(build(root), again) == result == evaluated(build(root), PREDICTED)


def test_label_0_without_an_instance_is_not_void_in_the_files(root):
    evaluated(build(root, outfile_prefix=str(root / 'out'), format_only=True, seg_prefix=None), [sample(1, np.zeros((2, 4)))])
    assert (decode_png((root / 'out.panoptic' / 's1.png').read_bytes()) == 1).all()


def test_format_only_needs_no_ground_truth(root):
    content = json.loads((root / 'panoptic.json').read_text())
    del content['annotations']
    (root / 'panoptic.json').write_text(json.dumps(content))
    assert evaluated(build(root, format_only=True, seg_prefix=None, outfile_prefix=str(root / 'out')), PREDICTED) == {}
    assert sorted(path.name for path in (root / 'out.panoptic').iterdir()) == ['i1.png', 'i2.png']
    assert len(read_back(root, {10: 0, 11: 1, 12: 2, 13: 3})) == 2


def test_interrupted_evaluation_leaves_no_results_that_look_whole(root):
    metric = build(root, outfile_prefix=str(root / 'out'))
    evaluated(metric, PREDICTED)
    metric.process({}, PREDICTED[:1])
    assert not (root / 'out.panoptic.json').exists() and not list(root.glob('**/*.tmp'))


def test_result_is_not_written_outside_of_its_folder(root):
    content = json.loads((root / 'panoptic.json').read_text())
    (root / 'segments' / 's1.png').rename(root / 's1.png')
    content['annotations'][0]['file_name'] = '../s1.png'
    (root / 'panoptic.json').write_text(json.dumps(content))
    before = (root / 's1.png').read_bytes()
    with pytest.raises(ValueError, match=r"'../s1.png' would be written outside of .*out.panoptic"):
        evaluated(build(root, outfile_prefix=str(root / 'out')), PREDICTED)
    assert (root / 's1.png').read_bytes() == before


@pytest.mark.parametrize(
    'predicted, reads',
    [
        (sample(1, np.zeros((4, 2))), r'image 1 \(images/i1.png\) is 2 x 4 pixels \(width x height\), .*panoptic.json states 4 x 2'),
        (sample(9, np.zeros((2, 4))), r'image 9 \(images/i9.png\) is not among the 2 images of .*panoptic.json'),
        (sample(1, np.full((2, 4), 5)), r'image 1 holds \[5\]; expected .* a label below 4'),
        (sample(1, np.full((2, 4), -1)), r'image 1 holds \[-1\]'),
        (dict(img_id=1), 'image 1 has no pred_panoptic_seg'),
    ],
)
def test_prediction_that_does_not_fit_is_named(root, predicted, reads):
    with pytest.raises(ValueError, match=reads):
        build(root).process({}, [predicted])


@pytest.mark.parametrize(
    'changes, reads',
    [
        (dict(ann_file=None), 'needs ann_file'),
        (dict(seg_prefix=None), 'needs seg_prefix'),
        (dict(format_only=True), 'needs outfile_prefix'),
        (dict(ann_file='nowhere.json'), 'ann_file nowhere.json cannot be read'),
        (dict(ann_file='panoptic.pkl'), 'can run code'),
    ],
)
def test_arguments_that_do_not_fit_are_named(root, changes, reads):
    with pytest.raises(ValueError, match=reads):
        build(root, **changes)


def test_classes_in_another_order_are_refused(root):
    with pytest.raises(ValueError, match="the classes of the data set are .*'dog', 'cat'.*panoptic.json .*'cat', 'dog'"):
        build(root, classes=('dog', 'cat', 'grass', 'sky')).process({}, PREDICTED)


def perfect_predictions(ann_file, folder) -> SimpleNamespace:
    """The ground truth of a file as predictions; crowds are left out."""
    content = json.loads(ann_file.read_text())
    labels = {category['id']: label for label, category in enumerate(content['categories'])}
    is_thing = [category['isthing'] for category in content['categories']]
    samples = []
    for annotation in content['annotations']:
        ids = decode_png((folder / annotation['file_name']).read_bytes())
        label_map = np.full(ids.shape, len(labels))
        for number, one in enumerate(annotation['segments_info'], start=1):
            if not one['iscrowd']:
                label = labels[one['category_id']]
                label_map[ids == one['id']] = label + 1000 * number * is_thing[label]
        samples.append(sample(annotation['image_id'], label_map))
    return SimpleNamespace(samples=samples, classes=tuple(category['name'] for category in content['categories']))


def test_ground_truth_of_generated_shapes_scores_100(shapes_dir):
    folder = shapes_dir / 'annotations'
    perfect = perfect_predictions(folder / 'panoptic_test.json', folder / 'panoptic_test')
    assert perfect.classes == SHAPES + STUFF_CLASSES
    metric = build(shapes_dir, perfect.classes, ann_file=str(folder / 'panoptic_test.json'), seg_prefix=str(folder / 'panoptic_test'))
    assert set(evaluated(metric, perfect.samples).values()) == {100.0}


def test_ground_truth_of_coco_scores_100(shared_data):
    folder = shared_data / 'coco128' / 'annotations'
    if not (folder / 'panoptic_val2017.json').is_file():
        pytest.skip(f'needs the panoptic annotations in {folder}')
    perfect = perfect_predictions(folder / 'panoptic_val2017.json', folder / 'panoptic_val2017')
    assert len(perfect.samples) >= 100
    perfect.samples = perfect.samples[::3]  # in a third of the time
    metric = build(folder, perfect.classes, ann_file=str(folder / 'panoptic_val2017.json'), seg_prefix=str(folder / 'panoptic_val2017'))
    assert set(evaluated(metric, perfect.samples).values()) == {100.0}
