"""The minimal model: the notebook's computation step by step, its weights, and the plugin's training around it."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_detr_plugin.checkpoints.convert_file import convert_file

from ..builders import detr_config, make_batch
from ..checkpoints import layouts


def config(**neck) -> dict:
    model = detr_config(bbox_head=dict(num_classes=80, num_box_layers=1, aux_loss=False))
    sizes = dict(in_channels=512, embed_dims=32, num_heads=4, num_encoder_layers=2, num_decoder_layers=3)
    model['neck'] = dict(type='mmdet_detr_plugin.DemoNeck', feedforward_channels=64, num_queries=10, **sizes, **neck)
    return model


@pytest.mark.parametrize('scale', [1.0, 0.1])
def test_released_layout_computes_what_the_notebook_describes(scale, tmp_path):
    weights = layouts.filled(layouts.demo())
    torch.save(weights, tmp_path / 'demo.pth')
    lines = convert_file(tmp_path / 'demo.pth', tmp_path / 'plugin.pth')
    assert 'official (demo), ResNet-18, 2 + 3 layers of 32 channels, the demo model, 10 queries, 91 classes' in lines[0]
    model = MODELS.build(config(feature_scale=scale))
    model.load_state_dict(torch.load(tmp_path / 'plugin.pth', weights_only=True)['state_dict'], strict=True)
    model.eval()

    transformer = nn.Transformer(32, 4, 2, 3, 64).eval()  # tokens first, as in the notebook
    transformer.load_state_dict(
        {name.removeprefix('transformer.'): value for name, value in weights.items() if name.startswith('transformer.')}
    )
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        logits, boxes = model(image, mode='tensor')
        features = nn.functional.conv2d(model.backbone(image)[-1], weights['conv.weight'], weights['conv.bias'])  # (1, 32, 3, 5)
        tokens, positions = [], []
        for row in range(3):
            for column in range(5):
                tokens.append(scale * features[:, :, row, column])
                positions.append(torch.cat((weights['col_embed'][column], weights['row_embed'][row]))[None])
        states = transformer(torch.stack(positions) + torch.stack(tokens), weights['query_pos'][:, None]).transpose(0, 1)
        expected_boxes = nn.functional.linear(states, weights['linear_bbox.weight'], weights['linear_bbox.bias']).sigmoid()
        person = states @ weights['linear_class.weight'][1] + weights['linear_class.bias'][1]
    assert logits.shape == (1, 1, 10, 81)
    torch.testing.assert_close(boxes[0], expected_boxes, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[0, ..., 0], person, atol=1e-5, rtol=0)


def test_demo_model_trains_and_every_parameter_gets_gradient():
    model = MODELS.build(config())
    model.train()
    losses = model.loss(**make_batch([(96, 160), (128, 90)], [3, 2], num_classes=80))
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_iou'}
    model.parse_losses(losses)[0].backward()
    without = [name for name, value in model.named_parameters() if value.requires_grad and (value.grad is None or not value.grad.any())]
    # mmdet's ResNet starts its residual branches at zero
    assert not [name for name in without if not name.startswith('backbone.')]


def test_feature_map_beyond_the_tables_is_named():
    model = MODELS.build(config())
    with pytest.raises(ValueError, match='50 rows and 50 columns, the feature map 2 x 51'):
        model(torch.zeros(1, 3, 64, 51 * 32), mode='tensor')
