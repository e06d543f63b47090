"""What the report says, read from its HTML."""

import copy
import json
import os
import subprocess
import sys

import pytest

from mmdet_detr_plugin.comparison.report import write_report
from mmdet_detr_plugin.comparison.report.formatting import mean_std, moment, plural, signed, time_unit
from mmdet_detr_plugin.comparison.report.sections.learning import mean_points
from mmdet_detr_plugin.comparison.report.sections.summary import without_shared_ending
from mmdet_detr_plugin.comparison.report.write import printable

from .conftest import written
from .fake_results import FIRST, HOSTILE_CLASS, SECOND, THIRD, bare_results, fake_results
from .pages import parsed, table

CHAPTERS = [
    *('Summary', 'Accuracy, speed and cost', 'Differences', 'Learning curves', 'Effect of padding', 'NMS and duplicates'),
    *('Kinds of errors', 'By class and by size', 'Calibration of scores', 'Precision and recall', 'Examples'),
    *('Health of the training', 'Fairness audit', 'Pre-flight findings', 'How to repeat it'),
]


def read(folder):
    return parsed((folder / 'report.html').read_text())


def titles(page) -> list[str]:
    return [heading.text() for heading in page.find('h2')]


def section(page, identifier: str):
    return next(each for each in page.find('section') if each.attributes['id'] == identifier)


def test_both_files_are_written_and_named(tmp_path):
    assert write_report(fake_results(), tmp_path) == [tmp_path / 'report.html', tmp_path / 'report.md']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['report.html', 'report.md']


@pytest.mark.parametrize('variant', ['one', 'many', 'short'])
def test_every_chapter_is_there_in_order_and_says_how_to_read_it(folders, variant):
    page = read(folders[variant])
    assert titles(page) == CHAPTERS
    for each in page.find('section'):
        reading = [paragraph.text() for paragraph in each.find('p') if paragraph.attributes.get('class') == 'reading']
        assert len(reading) == 1 and reading[0].endswith('.') and len(reading[0]) > 60
        assert ' not ' in reading[0]  # what it does not tell


def test_failed_run_and_unfair_difference_come_before_the_summary(folders):
    page = read(folders['one'])
    alerts = next(each for each in page.find('div') if each.attributes.get('class') == 'alerts')
    texts = [item.text() for item in alerts.find('li')]
    assert texts[0] == f'{SECOND}, seed 1 failed: RuntimeError: loss is <NaN> | at `step` 12'
    assert texts[1].startswith('Unfair: the models differ in batch size') and '--allow' in texts[1] and len(texts) == 2
    everything = page.find()
    assert everything.index(alerts) < everything.index(section(page, 'summary'))


def test_summary_starts_with_the_comparison_in_plain_words(folders):
    points = [item.text().replace('\xa0', ' ') for item in section(read(folders['one']), 'summary').find('li')]
    assert points[:3] == [pair['text'] for pair in fake_results()['pairs']]
    assert points[3] == f'Highest mean AP: {FIRST}, 0.350 ± 0.014 over 2 seeds.'
    assert points[4] == f'Fastest: {SECOND}, 38.9 ms for an image (median).'
    assert points[6].startswith('Prediction, not measured: ') and len(points) == 7  # the crossover without an epoch is none


def test_what_all_comparisons_end_with_is_said_once():
    texts = ['A beats B. Over images. Rough.', 'No telling. Not equal. Over images. Rough.']
    assert without_shared_ending(texts) == (['A beats B.', 'No telling. Not equal.'], 'Over images. Rough.')
    assert without_shared_ending(texts[:1]) == (texts[:1], '') and without_shared_ending([]) == ([], '')
    assert without_shared_ending(['Same. Same.', 'Same. Same.']) == (['Same.', 'Same.'], 'Same.')


def test_models_table_has_the_papers_columns_with_means_spreads_and_gaps(folders):
    head, first, second, third = table(read(folders['one']), 'Accuracy, speed and cost of each model')
    assert head[1:6] == ['GFLOPs', 'FPS', 'Latency p50 (ms)', 'Latency p95 (ms)', 'Parameters (M)']
    assert head[6:12] == ['AP', 'AP50', 'AP75', 'AP S', 'AP M', 'AP L']
    assert head[12:] == ['Peak training memory (MiB)', 'Training time (min)', 'Seeds']
    # seeds 0.34 and 0.36: mean 0.35, sample standard deviation 0.0141
    assert first == [FIRST, '4.6', '19.5', '51.2', '61.4', '14.3', '0.350 ± 0.014', '0.735 ± 0.030', '0.280 ± 0.011', '-'] + [
        *('0.245 ± 0.010', '0.420 ± 0.017', '2140 ± 1', '6.2 ± 0.0', '2 of 2')
    ]
    assert second[6] == '0.012' and second[-1] == '1 of 2'  # one seed left: no spread
    assert third[0] == THIRD


def test_differences_show_sign_interval_and_verdict(folders):
    rows = table(read(folders['one']), 'Differences between models, paired by image')
    assert rows[2] == [FIRST, THIRD, 'AP', '+0.080', '−0.012', '+0.171', 'no']
    assert [row[-1] for row in rows[1:]] == ['yes', 'no', 'yes']


def test_mean_points_leave_failed_seeds_out_and_survive_gaps():
    model = fake_results(epochs=4)['models'][0]
    first, second = (run['curve'] for run in model['runs'])
    assert [point['epoch'] for point in mean_points(model)] == [1, 2, 3, 4]
    assert mean_points(model)[1]['AP'] == pytest.approx((first[1]['AP'] + second[1]['AP']) / 2)
    assert mean_points(model)[1]['std'] == pytest.approx(abs(first[1]['AP'] - second[1]['AP']) / 2**0.5)
    second[1]['AP'] = first[2]['hours'] = None
    assert [(point['epoch'], point['minutes'] is None) for point in mean_points(model)] == [(1, False), (3, True), (4, False)]
    model['runs'][1]['state'] = 'failed'
    assert [point['AP'] for point in mean_points(model)] == [point['AP'] for point in first]
    model['runs'][0]['state'] = 'missing'
    assert mean_points(model) == []


@pytest.mark.parametrize(
    'evaluated_on, images', [('val', 'the evaluated images'), ('test', 'the validation images (elsewhere: on the test')]
)
def test_curves_say_which_images_they_are_of(tmp_path, evaluated_on, images):
    """Where there are test images, trainings are still evaluated on the validation images."""
    results = fake_results()
    splits = results['data']['splits']
    splits[evaluated_on] = splits['val']
    for item in results['data']['classes']:
        item['objects'][evaluated_on] = item['objects']['val']
    results['data']['evaluated_on'] = evaluated_on
    write_report(results, tmp_path)
    assert f'AP on {images}' in section(read(tmp_path), 'learning').text()


def test_epochs_to_a_share_and_predictions_are_told(folders):
    page = read(folders['one'])
    rows = table(page, "First evaluation with 50 % and 90 % of the model's own best mean AP")
    assert rows[1] == [FIRST, '4', '2.1', '12', '6.2', '0.350', '12'] and rows[3][3:5] == ['-', '-']
    assert table(page, 'Predicted crossovers (not measured)')[1][2] == '30'


def test_padding_nms_duplicates_and_errors_are_told(folders):
    page = read(folders['one'])
    assert table(page, 'AP with and without padding, means over seeds')[1][1:] == ['0.340', '0.338', '−0.002', '8', '21.3']
    nms = table(page, 'AP with and without suppression, means over seeds')
    assert nms[3] == [THIRD, 'yes', '0.50', '0.104', '0.260', '0.156', '0.546', '0.01'] and nms[1][1] == 'no'
    assert [row[0] for row in table(page, 'Duplicates by decoder layer, in numbers')[1:]] == list('123456')
    errors = table(page, 'AP50 that would be gained without these errors, means over seeds')
    assert errors[2][:2] == ['localisation', '0.065'] and len(errors) == 1 + 6 + 2


def test_classes_have_a_row_each_and_one_class_none(folders):
    rows = table(read(folders['many']), 'Means over seeds by class')
    assert len(rows) == 31 and rows[2][0] == HOSTILE_CLASS
    assert rows[4] == ['class 3', '169', '42', '-', '-', '-', '0.510', '0.018', '0.390']
    one = section(read(folders['one']), 'classes')
    assert 'There is one class only, raccoon' in one.text() and len(one.find('table')) == 1


def test_scores_health_and_conditions_are_told(folders):
    page = read(folders['one'])
    assert table(page, 'Calibration error, and the score threshold with the best F1')[1][1:3] == ['0.114', '0.420']
    assert len(table(page, 'Detections by score')) == 1 + 3 * 9  # the empty bins are left out
    assert len(table(page, 'Precision at each recall')) == 1 + 101
    queries = table(page, 'Queries, means over seeds; unused: matched to no object of any image, - where each image selects its own')
    assert [row[0] for row in queries[1:]] == [FIRST, SECOND] and queries[1][2:] == ['-', '10.4'] and queries[2][2] == '62.0'
    assert f'Not measured for {THIRD}' in section(page, 'health').text()
    differing = table(page, 'What differs')
    assert [row[:2] for row in differing[1:]] == [['batch size', 'unfair'], ['pad divisor', 'allowed']]
    assert differing[1][2:5] == [f'train_dataloader.batch_size={size}' for size in (4, 4, 8)]
    assert [row[0] for row in table(page, 'Findings before training')[1:]] == ['error', 'warning', 'note']


def test_everything_to_repeat_it_is_there(folders):
    results = fake_results()
    page = section(read(folders['one']), 'repeat')
    text = page.text()
    for value in (*results['repeat']['commands'], '7efc73d', 'memory.total_gib', '2.13.0', 'loss is <NaN> | at `step` 12'):
        assert value in text
    configs = [' '.join(config.split()) for config in results['repeat']['configs'].values()]
    assert [code.text() for code in page.find('code')][-3:] == configs
    runs = table(page, 'Runs')
    assert runs[4][:4] == [SECOND, '1', 'failed', '-'] and len(runs) == 7


def test_when_every_run_has_failed_the_report_says_why(tmp_path):
    page = read(written(bare_results(), tmp_path))
    assert 'seed 1 has not run to its end yet' in page.text()
    assert 'Budget: a schedule in iterations, batches of 4, seeds 0 and 1' in page.text()
    assert 'so their results do not show the models alone.' in page.text() and '--allow' not in section(page, 'audit').text()
    assert titles(page) == [
        *('Summary', 'Accuracy, speed and cost', 'Differences', 'Learning curves', 'By class and by size'),
        *('Fairness audit', 'Pre-flight findings', 'How to repeat it'),
    ]
    for identifier, reason in (
        ('differences', 'No two models have finished'),
        ('learning', 'no run was evaluated'),
        ('classes', 'No model has finished'),
        ('preflight', 'Nothing was found'),
    ):
        assert reason in section(page, identifier).text()


def test_one_model_alone_is_described(tmp_path):
    results = fake_results()
    results.update(models=results['models'][:1], pairs=[], crossovers=[], audit=[])
    page = read(written(results, tmp_path))
    assert 'There is one model only' in section(page, 'summary').text()
    assert 'Differences' not in titles(page) and 'Fairness audit' not in titles(page)


def test_nothing_is_written_into_the_results(tmp_path):
    results = fake_results()
    before = copy.deepcopy(results)
    write_report(results, tmp_path)
    assert results == before


def test_same_results_give_the_same_bytes_in_another_process(folders, tmp_path):
    results = fake_results()
    folder = written(results, tmp_path / 'here')
    for name in ('report.html', 'report.md'):
        assert (folder / name).read_bytes() == (folders['one'] / name).read_bytes()
    written(results, tmp_path / 'there')
    (tmp_path / 'results.json').write_text(json.dumps(results))
    code = (
        'import json, sys, pathlib; from mmdet_detr_plugin.comparison.report import write_report;'
        'write_report(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))'
    )
    environ = {**os.environ, 'PYTHONHASHSEED': '7', 'TZ': 'Asia/Tokyo'}
    subprocess.run([sys.executable, '-c', code, tmp_path / 'results.json', tmp_path / 'there'], check=True, env=environ)
    for name in ('report.html', 'report.md'):
        assert (tmp_path / 'there' / name).read_bytes() == (folder / name).read_bytes()


def test_what_cannot_be_shown_is_left_out(tmp_path):
    results = fake_results()
    dirty = json.loads(json.dumps(results).replace('local-detr', '\\u001b[31mlocal\\u0000-\\udcffdetr\\u001b[0m'))
    assert dirty['models'][0]['name'] == '\x1b[31mlocal\0-\udcffdetr\x1b[0m' + FIRST.removeprefix('local-detr')
    page = read(written(dirty, tmp_path))
    assert table(page, 'Runs')[1][0] == 'local-?detr' + FIRST.removeprefix('local-detr')
    assert printable(results) == results and printable('a\tb\r\nü😀 −') == 'a\tb\r\nü😀 −'


def test_other_formats_and_empty_results_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'expected results of format 1, got 2; write the report with the version that made them'):
        write_report(fake_results() | {'format': 2}, tmp_path)
    with pytest.raises(ValueError, match=r'at least one model, got none; run the comparison first'):
        write_report(fake_results() | {'models': []}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_numbers_read_well():
    assert mean_std({'mean': 0.25, 'std': 0.02}) == '0.250 ± 0.020' and mean_std({'mean': 0.25, 'std': None}) == '0.250'
    assert mean_std(None) == mean_std({'mean': None, 'std': None}) == '-'
    assert (signed(0.05), signed(-0.05), signed(None)) == ('+0.050', '−0.050', '-')
    assert [time_unit(times)[0] for times in ([59, None], [60], [1, 3600], [])] == ['s', 'min', 'h', 's']
    assert moment('2026-11-24T18:00:00+01:00') == '2026-11-24 17:00 UTC' and moment('today') == 'today'
    assert [plural(1, 'class'), plural(2, 'class'), plural(0, 'seed')] == ['1 class', '2 classes', '0 seeds']
