"""Predictions from weights that a checkpoint should have brought are refused, where mmdet goes on with a warning."""

import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.runner import load_checkpoint

from ..builders import build, detr_config, make_batch
from ..conftest import ROOT

DETR, LOCAL_DETR = (ROOT / f'configs/shapes/{name}_1xb4-10e_shapes.py' for name in ('detr_r18-half', 'local-detr_r18-half'))


def predict(model):
    batch = make_batch([(64, 64)], [2])
    return model.eval()(batch['batch_inputs'], batch['batch_data_samples'], mode='predict')


def weights(**changes) -> dict:
    return dict(build(detr_config(**changes)).state_dict())


def test_mmdets_functions_refuse_another_models_checkpoint(tmp_path, shapes_dir):
    torch.manual_seed(0)
    file, image = str(tmp_path / 'local-detr.pth'), str(shapes_dir / 'test' / '000001.png')
    torch.save(dict(state_dict=init_detector(str(LOCAL_DETR), device='cpu').state_dict()), file)
    assert len(inference_detector(init_detector(str(LOCAL_DETR), file, device='cpu'), image).pred_instances)
    model = init_detector(str(DETR), file, device='cpu')
    with pytest.raises(ValueError, match=r'DETR does not predict from random weights: \d+ of its .* bbox_head\.'):
        inference_detector(model, image)
    with pytest.raises(ValueError, match='does not predict from random weights'):
        DetInferencer(str(DETR), file, device='cpu', show_progress=False)(image)


@pytest.mark.parametrize('left_out', ['bbox_head.fc_cls.', 'neck.query_embed.', 'backbone.layer4.1.bn2.running_var'])
def test_one_weight_that_is_left_out_is_enough(left_out):
    model, state = build(detr_config()), weights()
    names = [name for name in state if name.startswith(left_out)]
    model.load_state_dict({name: value for name, value in state.items() if name not in names}, strict=False)
    with pytest.raises(ValueError, match=f'{len(names)} of its .*{names[0]}'):
        predict(model)


def test_weights_of_another_shape_are_not_loaded(tmp_path):
    torch.save(dict(state_dict=weights(bbox_head=dict(num_classes=3))), tmp_path / 'three.pth')
    model = build(detr_config())
    load_checkpoint(model, str(tmp_path / 'three.pth'))
    with pytest.raises(ValueError, match=r'2 of its .*bbox_head\.fc_cls\.bias, bbox_head\.fc_cls\.weight\.'):
        predict(model)


def test_what_is_trained_or_loaded_later_predicts():
    state = weights()
    head = {name: value for name, value in state.items() if name.startswith('bbox_head.')}
    rest = {name: value for name, value in state.items() if name not in head}
    model = build(detr_config())
    assert predict(model)  # nothing was loaded: as it was built
    model.load_state_dict(rest, strict=False)
    model.load_state_dict(head, strict=False)
    assert predict(model)
    model.load_state_dict(rest, strict=False)  # replaces what has come before
    assert predict(model)

    model = build(detr_config())
    model.load_state_dict(rest, strict=False)
    batch = make_batch([(64, 64)], [2])
    model.train()(batch['batch_inputs'], batch['batch_data_samples'], mode='loss')
    assert predict(model)


def test_training_aids_may_be_left_out():
    model = build(detr_config(training_aids=dict(groups=dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2))))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith('training_aids.')}
    assert len(state) < len(model.state_dict())
    model.load_state_dict(state, strict=False)
    assert predict(model)
