"""results.json says what the runs have left: done, failed and missing ones, on planted detections with known figures."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_detr_plugin.comparison.compare import Comparison, stopping
from mmdet_detr_plugin.comparison.context import data_facts, images_per_epoch
from mmdet_detr_plugin.comparison.execution import Launch, Run
from mmdet_detr_plugin.comparison.preparation import Model
from mmdet_detr_plugin.comparison.report.write import write_report
from mmdet_detr_plugin.comparison.results import compared, model_results, summary_of, truth_for
from mmdet_detr_plugin.files import write_json
from mmdet_detr_plugin.preflight import Finding

from ..conftest import ROOT

SPEED = dict(parameters=10, giga_multiply_adds=1.0, latency=None)


@pytest.fixture
def cfg(shapes_dir) -> Config:
    cfg = Config.fromfile(ROOT / 'configs/shapes/local-detr_r18-half_1xb4-10e_shapes.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{shapes_dir}/'
    return cfg


def truth_of(shapes_dir) -> list[dict]:
    annotations = json.loads((shapes_dir / 'annotations/test.json').read_text())['annotations']
    return [dict(image_id=item['image_id'], category_id=item['category_id'], bbox=item['bbox'], score=0.9) for item in annotations]


def finished(folder: Path, detections: dict[str, list], health=None, nms_iou=None, curve=(0.1, 0.4)) -> Run:
    """What training and evaluation leave."""
    run = Run('model', 0, folder / 'config.py', folder, epochs=2)
    records = []
    for epoch, value in enumerate(curve, start=1):
        records += [dict(time=0.5, iter=4 * epoch, epoch=epoch), {'coco/bbox_mAP': value, 'step': epoch}]
    log = run.training / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, records)))
    for name, found in detections.items():
        write_json(folder / 'detections' / f'{name}.json', found)
    layers = sum(name.startswith('layer') for name in detections)
    write_json(folder / 'trained.json', dict(peak_process_mib=500.0))
    padding = dict(batch_size=8, padded_pixels=0.25)
    write_json(folder / 'evaluation.json', dict(padding=padding, nms_iou=nms_iou, layers=layers, health=health))
    return run


def test_figures_of_planted_detections(cfg, shapes_dir, tmp_path):
    """Perfect at the last layer; everything twice at the first; half of the objects when images come one by one."""
    perfect = truth_of(shapes_dir)
    twice = perfect + [dict(item, score=0.8) for item in perfect]
    found = dict(padded=perfect, single=perfect[::2], layer1=twice, layer2=perfect)
    health = dict(queries=50, unused_queries=None, collapsed_pairs=0.5, matching_changes=[dict(epoch=2, share=0.25)])
    run = finished(tmp_path / 'run', found, health)
    truth = shapes_dir / 'annotations/test.json'
    entry, matches = model_results(Model('model', Path('model.py'), cfg), [run], SPEED, truth, images_per_epoch=16)
    assert len(matches) == 1 and entry['metrics']['AP'] == dict(mean=pytest.approx(1.0), std=None, values=[pytest.approx(1.0)])
    assert entry['padding']['padded'] == pytest.approx(1.0) and entry['padding']['single'] < 0.7
    assert [layer['layer'] for layer in entry['layers']] == [1, 2]
    assert [layer['duplicates_per_object'] for layer in entry['layers']] == [0.0, 0.0]  # the second ones score below the operating point
    assert entry['operating_point'] == dict(score_thr=0.9, precision=1.0, recall=1.0, f1=1.0)
    assert entry['duplicates_per_object'] == 0.0 and entry['errors']['missed'] == pytest.approx(0.0)
    assert not entry['nms']['has_nms'] and entry['nms']['iou'] == 0.5
    assert entry['runs'][0]['curve'] == [
        dict(epoch=1, images=16, hours=pytest.approx(2 / 3600), AP=0.1),
        dict(epoch=2, images=32, hours=pytest.approx(4 / 3600), AP=0.4),
    ]
    assert (entry['training_seconds']['mean'], entry['peak_memory_mib']['mean']) == (pytest.approx(10 * 2.0), 500.0)  # the config's epochs
    assert entry['epochs_to'] == {'50': 2, '90': 2}
    assert entry['health'] == health


def test_classes_that_no_model_was_made_for_do_not_count(cfg, shapes_dir, tmp_path):
    """As in mmdet's metric: a subset of a file's classes is a whole task."""
    truth, perfect = shapes_dir / 'annotations/test.json', truth_of(shapes_dir)
    own, all_categories = sorted({item['category_id'] for item in perfect})[:2], {item['category_id'] for item in perfect}
    assert len(all_categories) > 2
    found = [item for item in perfect if item['category_id'] in own]
    run = finished(tmp_path / 'run', dict(padded=found, single=found, layer1=found))
    others = finished(tmp_path / 'others', dict(padded=found, single=found))
    for folder, categories in ((run.folder, own), (others.folder, own[:1])):
        write_json(folder / 'evaluation.json', json.loads((folder / 'evaluation.json').read_text()) | dict(categories=categories))
    judged = truth_for([run, others], truth)
    assert judged.category_ids.tolist() == own and len(judged.objects) == len(found)
    entry, _ = model_results(Model('model', Path('model.py'), cfg), [run], SPEED, judged, images_per_epoch=16)
    assert entry['metrics']['AP']['mean'] == entry['nms']['without']['AP'] == entry['layers'][0]['AP'] == pytest.approx(1.0)
    assert entry['operating_point']['recall'] == 1.0 and entry['errors']['missed'] == pytest.approx(0.0) and len(entry['by_class']) == 2
    before = finished(tmp_path / 'before', dict(padded=found, single=found))  # evaluated when that was not noted yet
    assert set(truth_for([run, before], truth).category_ids.tolist()) == all_categories
    assert truth_for([], tmp_path / 'nowhere.json') is None


def test_model_with_nms_is_shown_without_it(cfg, shapes_dir, tmp_path):
    perfect = truth_of(shapes_dir)
    twice = [dict(item, score=0.9 - 0.01 * rank - less) for rank, item in enumerate(perfect) for less in (0.0, 0.001)]
    run = finished(tmp_path, dict(padded=perfect, single=perfect, unsuppressed=twice), nms_iou=0.7)
    entry, _ = model_results(Model('model', Path('model.py'), cfg), [run], SPEED, shapes_dir / 'annotations/test.json', 16)
    assert entry['nms']['has_nms'] and entry['nms']['iou'] == 0.7 and entry['nms']['with']['AP'] == pytest.approx(1.0)
    assert entry['nms']['without']['AP'] < 1.0 and entry['health'] is None and entry['layers'] == []


def test_failed_and_missing_runs_are_reported_beside_the_others(cfg, shapes_dir, tmp_path):
    done = finished(tmp_path / 'done', dict(padded=truth_of(shapes_dir), single=[]))
    failed = Run('model', 1, tmp_path / 'config.py', tmp_path / 'failed', epochs=2)
    write_json(failed.folder / 'failed.json', dict(step='training', reason='exit status 1', log='it broke'))
    missing = Run('model', 2, tmp_path / 'config.py', tmp_path / 'missing', epochs=2)
    truth = shapes_dir / 'annotations/test.json'
    entry, matches = model_results(Model('model', Path('model.py'), cfg), [done, failed, missing], SPEED, truth, 16)
    assert [run['state'] for run in entry['runs']] == ['done', 'failed', 'missing'] and len(matches) == 1
    assert 'training ended with exit status 1' in entry['runs'][1]['error'] and 'it broke' in entry['runs'][1]['error']
    assert entry['metrics']['AP']['values'] == [pytest.approx(1.0)]
    nothing, none = model_results(Model('other', Path('other.py'), cfg), [missing], SPEED, truth, 16)
    assert (
        none == [] and nothing['metrics']['AP'] == dict(mean=None, std=None, values=[]) and nothing['epochs_to'] == {'50': None, '90': None}
    )
    found = compared([{**entry, 'name': 'model'}, {**nothing, 'name': 'other'}], dict(model=matches, other=[]))
    assert found == dict(pairs=[], crossovers=[])


def test_report_of_nothing_done_is_still_a_report(cfg, tmp_path):
    """A user who interrupts early sees what is missing instead of an error."""
    seen_once, cfg = images_per_epoch(cfg), Config(cfg.to_dict())
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset)
    models = [Model(name, Path(f'{name}.py'), cfg) for name in ('a_x', 'b_x')]
    files = {model.name: tmp_path / f'{model.name}.py' for model in models}
    for file in files.values():
        file.write_text('model = dict()')
    comparison = Comparison(models, files, [0], tmp_path, Launch(), 'data', 'python tools/compare.py')
    speeds = {model.name: SPEED for model in models}
    write_json(tmp_path / 'speed.json', dict(checkpoints=dict.fromkeys(speeds, 'None'), speeds=speeds))
    paths = comparison.report([], [('', Finding('data', 'warning', 'found', 'do'))], say=lambda text: None)
    results = json.loads((tmp_path / 'results.json').read_text())
    assert not results['complete'] and [model['name'] for model in results['models']] == ['a', 'b'] and results['examples'] == []
    assert all(path.is_file() for path in paths) and write_report(results, tmp_path)
    assert results['budget']['images_seen'] == 3 * seen_once * cfg.train_cfg.max_epochs > 0


def test_data_facts_count_every_split_once(cfg, shapes_dir):
    facts = data_facts(cfg, 'shapes')
    objects = json.loads((shapes_dir / 'annotations/train.json').read_text())['annotations']
    assert facts['evaluated_on'] == 'val' and set(facts['splits']) == {'train', 'val'}
    assert facts['splits']['train']['objects'] == len(objects) == sum(item['objects']['train'] for item in facts['classes'])
    assert [item['name'] for item in facts['classes']] == ['circle', 'square', 'triangle', 'star']
    cfg = Config(cfg.to_dict())
    cfg.train_dataloader.dataset.metainfo = dict(classes=('star',))
    stars = data_facts(cfg, 'stars')['splits']['train']
    ids = [item['image_id'] for item in objects if item['category_id'] == 4]
    assert stars['objects'] == len(ids) > 0 and stars['empty_images'] == facts['splits']['train']['images'] - len(set(ids)) > 0


def test_joined_and_repeated_training_data_count_as_they_are_seen(cfg, shapes_dir, tmp_path):
    cfg = Config(cfg.to_dict())
    alone, seen_alone = data_facts(cfg, 'shapes'), images_per_epoch(cfg)
    content = json.loads((shapes_dir / 'annotations/train.json').read_text())
    content |= dict(images=content['images'][:3], annotations=[dict(content['annotations'][0], image_id=content['images'][0]['id'])])
    (tmp_path / 'few.json').write_text(json.dumps(content))
    inner = cfg.train_dataloader.dataset
    few = dict(inner, ann_file=str(tmp_path / 'few.json'), filter_cfg=dict(filter_empty_gt=True))
    repeated = dict(type='RepeatDataset', times=4, dataset=few)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, repeated])
    facts = data_facts(cfg, 'shapes')
    train, before = facts['splits']['train'], alone['splits']['train']
    assert train['images'] == before['images'] + 3 and train['objects'] == before['objects'] + 1
    assert train['empty_images'] == before['empty_images'] + 2 and facts['classes'][0]['name'] == 'circle'
    assert images_per_epoch(cfg) == seen_alone + 4  # one of the three has an object
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    assert data_facts(cfg, 'shapes')['splits']['train'] == before and images_per_epoch(cfg) == 2 * seen_alone


def test_summary_ignores_what_is_not_known():
    assert summary_of([0.1, None, 0.3]) == dict(mean=pytest.approx(0.2), std=pytest.approx(0.02**0.5), values=[0.1, None, 0.3])
    assert summary_of([]) == dict(mean=None, std=None, values=[])


def test_only_errors_stop_a_comparison():
    found = [('', Finding('data', 'error', 'boxes are NaN', 'mend')), ('detr', Finding('recipe', 'warning', 'slow', 'wait'))]
    assert stopping(found) == ['boxes are NaN']
