"""NaN that is planted in a training is named, stops it before the update, and leaves a file that repeats the step."""

import math

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_detr_plugin.engine.failed_step import load_step, replay
from mmdet_detr_plugin.engine.first_non_finite import find_first

from ..tools.test_resuming import assert_equal
from .planted_faults import EPOCHS, FAULTY_STEP, ITERS, in_gradient, in_output, in_tensor, load, trained

FAULTS = {
    # name: (what is planted, the beginning of its name)
    'weight': (in_tensor('backbone.layer2.0.conv1.weight'), 'parameter backbone.layer2.0.conv1.weight (72 of '),
    'buffer': (in_tensor('backbone.layer1.0.bn1.running_mean'), 'buffer backbone.layer1.0.bn1.running_mean (1 of 8 '),
    'image': ('image', 'pixels of image {path} (img_id {id}) (1 of 49152 values are NaN or infinite, the first at [1, 5, '),
    'box': ('box', 'ground-truth boxes of image {path} (img_id {id}) (1 of '),
    'output': (in_output('backbone.layer1.1'), 'output of module backbone.layer1.1, '),
    'gradient': (in_gradient('backbone.layer1'), 'gradient of parameter backbone.layer1.1.bn2.weight (8 of 8 '),
}
CASES = [(kind, fault) for kind in ('detr', 'local') for fault in FAULTS] + [('faster_rcnn', 'output'), ('faster_rcnn', 'box')]


@pytest.fixture(scope='module')
def undisturbed(shapes_dir, tmp_path_factory):
    """By kind of model: the log of a run without the hook, and its last checkpoint."""
    runs = {}

    def run(kind: str):
        if kind not in runs:
            work_dir = tmp_path_factory.mktemp(f'undisturbed-{kind}')
            _, log = trained(load(kind, shapes_dir, work_dir), is_checked=False)
            runs[kind] = log, last_checkpoint(work_dir)
        return runs[kind]

    return run


def last_checkpoint(work_dir) -> dict:
    return torch.load(work_dir / f'epoch_{EPOCHS}.pth', weights_only=True)


def assert_same_end(first: dict, second: dict) -> None:
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(first[key], second[key], key)


@pytest.mark.parametrize('kind', ['detr', 'local', 'faster_rcnn'])
def test_clean_run_is_bit_equal_with_and_without_the_hook(kind, undisturbed, shapes_dir, tmp_path):
    runner, log = trained(load(kind, shapes_dir, tmp_path))
    assert log.losses == undisturbed(kind)[0].losses
    assert_same_end(last_checkpoint(tmp_path), undisturbed(kind)[1])
    assert 'train_step' not in vars(runner.model)  # nothing is left behind
    assert not list(tmp_path.glob('non_finite*'))


@pytest.mark.parametrize('kind, fault', CASES)
def test_planted_fault_is_named_stops_before_the_update_and_is_repeated_from_the_file(kind, fault, undisturbed, shapes_dir, tmp_path):
    plant, expected = FAULTS[fault]
    reference, end = undisturbed(kind)
    faulty_image = reference.images[FAULTY_STEP][1]
    with pytest.raises(FloatingPointError) as raised:
        trained(load(kind, shapes_dir, tmp_path), plant, faulty_image)
    runner, log = raised.value.run
    message = str(raised.value)
    path = f'{shapes_dir}/train/{faulty_image:06d}.png'
    expected = expected.format(path=path, id=faulty_image)
    assert f'First bad tensor: {expected}' in message
    assert f'epoch 2, iteration 2 of {ITERS} (4 of the run)' in message
    assert f'image {path} (img_id {faulty_image})' in message

    # what is saved
    saved = tmp_path / 'non_finite_epoch_2_iter_4.pth'
    step = torch.load(saved, weights_only=True)
    assert str(saved) in message and step['first'].startswith(expected)
    assert [image['img_id'] for image in step['images']] == reference.images[FAULTY_STEP] == log.images[FAULTY_STEP]
    before = {**reference.weights[FAULTY_STEP]}
    is_late = (kind, fault) == ('local', 'buffer')  # training does not use it: found at the end of the epoch
    assert ('The update was not made' in message) == ('seen after the step' not in message) == (not is_late)
    if not is_late:
        different = [name for name in before if not torch.equal(step['state_dict'][name], before[name])]
        assert different == ([step['first'].split()[1]] if fault in ('weight', 'buffer') else [])
        now = runner.model.state_dict()
        assert all(torch.equal(now[name], before[name]) for name in before if name not in different)
    for key, value in reference.losses[FAULTY_STEP].items() if fault == 'gradient' else ():
        assert step['losses'][key] == pytest.approx(value, rel=1e-5, abs=1e-6)

    # what the file gives back
    if fault in ('output', 'gradient'):  # in the network's code, so not in the file
        assert replay(saved) is None
        model = MODELS.build(runner.cfg.model)
        plant(model)
        assert replay(saved, model) == step['first']
    elif not is_late:
        assert replay(saved) == step['first']
    if fault == 'gradient':
        first, losses = find_first(*load_step(saved))
        assert first is None and losses == step['losses']

    # what is left to go on with
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model
    assert all(value.isfinite().all() for value in ema.parameters())
    if fault in ('image', 'gradient'):
        cfg = load(kind, shapes_dir, tmp_path)
        cfg.resume = True
        trained(cfg)
        assert_same_end(last_checkpoint(tmp_path), end)


def test_fault_in_a_resumed_run_is_named_too(undisturbed, shapes_dir, tmp_path):
    reference, _ = undisturbed('local')
    for resume in (False, True):
        cfg = load('local', shapes_dir, tmp_path)
        cfg.resume = resume
        with pytest.raises(FloatingPointError, match=r'pixels of image .* \(4 of the run\)|\(4 of the run\)[^\0]*pixels of image'):
            trained(cfg, 'image', reference.images[FAULTY_STEP][0])
    assert math.isfinite(reference.losses[FAULTY_STEP]['loss'])
