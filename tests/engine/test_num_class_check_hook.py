"""Models whose numbers of classes are not the data's stop before they train or evaluate."""

from types import SimpleNamespace

import pytest
from mmdet.registry import HOOKS
from torch import nn

CLASSES = dict(classes=('cat', 'dog', 'sky'), thing_classes=('cat', 'dog'))


def part(**attributes) -> nn.Module:
    module = nn.Module()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def panoptic_fpn(things=2, stuff=1, in_roi_head=2, fused=(2, 1)) -> nn.Module:
    """The attributes of mmdet's."""
    return part(
        num_things_classes=fused[0],
        num_stuff_classes=fused[1],
        num_classes=sum(fused),
        rpn_head=part(num_classes=1),
        roi_head=part(bbox_head=part(num_classes=in_roi_head)),
        semantic_head=part(num_things_classes=things, num_stuff_classes=stuff, num_classes=stuff + 1),
    )


def panoptic_detr(things=2, stuff=1, queries=3) -> nn.Module:
    return part(num_things_classes=things, num_stuff_classes=stuff, bbox_head=part(num_classes=queries))


def check(model: nn.Module, metainfo: dict) -> None:
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    hook = HOOKS.build(dict(type='mmdet_detr_plugin.NumClassCheckHook'))
    hook.before_train_epoch(SimpleNamespace(model=model, train_dataloader=loader))
    hook.before_val_epoch(SimpleNamespace(model=model, val_dataloader=loader))


@pytest.mark.parametrize('model', [panoptic_fpn(), panoptic_detr(), part(bbox_head=part(num_classes=3))], ids=['fpn', 'detr', 'boxes'])
def test_models_of_the_data_pass(model):
    check(model, CLASSES)


def test_instances_alone_need_no_thing_classes():
    check(panoptic_detr(3, 0, 3), dict(classes=CLASSES['classes']))


@pytest.mark.parametrize(
    'model, reads',
    [
        (panoptic_fpn(things=3), r'num_things_classes of semantic_head \(Module\) is 3, the train data .* needs 2: .* 2 classes of things'),
        (panoptic_fpn(stuff=2), 'num_stuff_classes of semantic_head .* is 2, .* needs 1'),
        (panoptic_fpn(in_roi_head=3), 'num_classes of roi_head.bbox_head .* is 3, .* needs 2'),
        (panoptic_fpn(fused=(1, 2)), 'num_things_classes of the model .* is 1, .* needs 2'),
        (panoptic_detr(queries=2), 'num_classes of bbox_head .* is 2, .* needs 3'),
    ],
)
def test_panoptic_models_of_other_data_are_refused(model, reads):
    with pytest.raises(ValueError, match=reads):
        check(model, CLASSES)


def test_other_models_of_other_data_are_refused_as_in_mmdet():
    with pytest.raises(AssertionError, match=r'num_classes` \(2\) .* `classes` 3'):
        check(part(bbox_head=part(num_classes=2)), CLASSES)
