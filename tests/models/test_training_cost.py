"""Counts that decide about speed: waits for the device, operations of the loss, breaks of compiled graphs. No seconds."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_detr_plugin.models import hungarian_assigner
from mmdet_detr_plugin.models.transformer import attention

from ..builders import build, detr_config, make_batch


def test_a_training_step_waits_for_the_device_once_and_inference_never(monkeypatch):
    """On torch's meta device nothing has a value, so that every look at one fails; the matching's own is stood in for."""
    waits = []

    def to_host(x):
        waits.append(x.shape)
        return np.random.default_rng(0).random(x.shape)

    monkeypatch.setattr(hungarian_assigner, 'to_host', to_host)
    batch = make_batch([(96, 160), (128, 90)], [3, 2])
    images, samples = batch['batch_inputs'].to('meta'), [sample.to('meta') for sample in batch['batch_data_samples']]
    model = build(detr_config()).to('meta')
    sum(model.loss(images, samples).values()).backward()
    assert waits == [(6, 3, 10)]  # 3 layers x 2 images, the largest number of objects, queries
    with torch.no_grad():
        assert model.eval().predict(images, samples)[0].pred_instances.bboxes.shape == (10, 4)
    assert len(waits) == 1


class OperationCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def loss_operations(num_layers: int, counts: list[int]) -> int:
    head = MODELS.build(dict(type='mmdet_detr_plugin.DETRHead', num_classes=5, embed_dims=8))
    batch = make_batch([(96, 96)] * len(counts), counts)
    samples = batch['batch_data_samples']
    logits = torch.randn(num_layers, len(counts), 20, 6, requires_grad=True)
    boxes = (torch.rand(num_layers, len(counts), 20, 4) * 0.5 + 0.2).requires_grad_()
    counter = OperationCounter()
    with counter:
        losses = head.loss_by_feat(logits, boxes, [sample.gt_instances for sample in samples], [sample.metainfo for sample in samples])
        torch.autograd.backward(list(losses.values()))
    return counter.count


def test_operations_of_the_loss_do_not_grow_with_layers_images_or_objects():
    few = loss_operations(1, [3, 2])
    assert few < 280
    assert loss_operations(6, [3, 2]) - few <= 25  # one scalar more, and its gradient, for each loss of each layer
    assert loss_operations(1, [3, 2, 7, 1, 4, 0]) - few <= 10  # each image's own tensors are put together
    assert loss_operations(1, [15, 12]) == few


@pytest.mark.parametrize('changes', [{}, dict(with_cp=True), dict(pre_norm=True, dropout=0.0)], ids=['plain', 'checkpointing', 'pre-norm'])
def test_neck_and_head_compile_without_a_graph_break(changes):
    torch._dynamo.reset()
    config = detr_config(neck={'dropout': 0.0, **changes})
    plain = build(config)
    compiled = build({**config, 'compile_transformer': dict(fullgraph=True, backend='eager')})
    compiled.load_state_dict(plain.state_dict(), strict=True)
    for shapes in ([(96, 160), (128, 90)], [(80, 96), (64, 128)], [(128, 128)]):
        batch = make_batch(shapes, [3] * len(shapes))
        losses = [model.train().loss(**batch) for model in (plain, compiled)]
        for name, value in losses[0].items():
            torch.testing.assert_close(losses[1][name], value, msg=name)
        sum(losses[1].values()).backward()
    assert compiled.neck.query_embed.weight.grad is not None


def test_compiled_attention_drops_out():
    """With the weights that stay scaled, as without ``torch.compile``."""
    torch._dynamo.reset()
    q, k, v = (torch.randn(2, 2, 300, 8, requires_grad=True) for _ in range(3))
    compiled = torch.compile(attention, backend='eager', fullgraph=True)
    plain = attention(q, k, v, None, 0.0)
    torch.testing.assert_close(compiled(q, k, v, None, 0.0), plain, rtol=1e-4, atol=1e-5)
    dropped = torch.stack([compiled(q, k, v, None, 0.5) for _ in range(20)])
    assert (dropped[0] - dropped[1]).abs().mean() > 0.05
    torch.testing.assert_close(dropped.mean(), plain.mean(), rtol=0, atol=0.02)


def test_whole_training_step_compiles_with_scipy_in_it():
    """As mmengine's setting ``compile`` does it; the matching is one break in the graph."""
    torch._dynamo.reset()
    from mmengine.optim import OptimWrapper

    model = build(detr_config(neck=dict(dropout=0.0)))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    batch = make_batch([(96, 160), (128, 90)], [3, 2])
    data = dict(inputs=[torch.zeros(3, *sample.img_shape, dtype=torch.uint8) for sample in batch['batch_data_samples']])
    data['data_samples'] = batch['batch_data_samples']
    expected = model.train_step(data, wrapper)
    model.train_step = torch.compile(model.train_step, backend='eager')
    got = model.train_step(data, wrapper)
    torch.testing.assert_close(got['loss'], expected['loss'], rtol=1e-4, atol=1e-4)


def test_checkpointing_keeps_less_and_computes_the_same():
    kept, gradients = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(detr_config(neck=dict(with_cp=with_cp, dropout=0.1))).train()
        batch = make_batch([(128, 128)] * 2, [3, 2])
        sizes = {}

        def pack(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        feats = model.extract_feat(batch['batch_inputs']).detach().requires_grad_()
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            hidden_states, _ = model.neck(feats)
        hidden_states.square().mean().backward()
        kept.append(sum(sizes.values()))
        gradients.append(feats.grad)
    assert kept[1] < 0.5 * kept[0]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_faster_rcnn_takes_the_backbone():
    model = MODELS.build(ConfigDict(type='mmdet_detr_plugin.FoldedResNet', depth=18, init_cfg=None))
    assert [out.shape[1] for out in model(torch.zeros(1, 3, 64, 64))] == [64, 128, 256, 512]
