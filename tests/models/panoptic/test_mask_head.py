"""The mask head's arithmetic: against formulas written out, and unchanged by what only saves time or memory."""

import pytest
import torch
import torch.nn.functional as F

from mmdet_detr_plugin.models.panoptic import mask_head as mask_head_module
from mmdet_detr_plugin.models.panoptic import mask_loss
from mmdet_detr_plugin.models.panoptic.mask_head import DETRMaskHead
from mmdet_detr_plugin.models.transformer_neck import Encoded

SIZES = [(40, 64), (20, 32), (10, 16), (5, 8)]  # strides 4 to 32 of 160 x 256


def sources(num_images: int = 2, padded: bool = True):
    torch.manual_seed(0)
    finer = [torch.randn(num_images, channels, *size) for channels, size in zip((6, 7, 9), SIZES)]
    memory, projected = torch.randn(num_images, 40, 32), torch.randn(num_images, 32, *SIZES[-1])
    attend = None
    if padded:
        attend = torch.ones(num_images, 1, 1, 40, dtype=torch.bool)
        attend[1:, ..., 30:] = False
    return Encoded(memory, torch.zeros(1, 40, 32), attend, SIZES[-1], projected), finer


def small_head() -> DETRMaskHead:
    torch.manual_seed(1)
    head = DETRMaskHead((6, 7, 9), 32, 8)
    for parameter in head.parameters():  # biases and norms at their initial values hide errors
        parameter.data += 0.2 * torch.randn_like(parameter)
    return head


def written_out(head: DETRMaskHead, hidden_states, encoded, finer):
    """As the paper's figure 8 and the official code have it: everything repeated for each query, then concatenated."""
    num_images, num_queries = hidden_states.shape[:2]
    queries, keys = head.attention.q_linear(hidden_states), head.attention.k_linear(encoded.memory)
    maps = []
    for image in range(num_images):
        for query in range(num_queries):
            scores = [queries[image, query, part] @ keys[image, :, part].T / 2 for part in torch.arange(32).view(8, 4)]
            scores = torch.stack(scores)  # (heads, N)
            if encoded.attend_mask is not None:
                scores[:, ~encoded.attend_mask[image, 0, 0]] = -torch.inf
            maps.append(scores.flatten().softmax(0).view(8, *encoded.map_size))
    x = torch.cat((encoded.projected_map.repeat_interleave(num_queries, 0), torch.stack(maps)), dim=1)
    convs = head.mask_convs
    for index, (conv, norm) in enumerate(zip(convs.convs, convs.norms)):
        if index >= 2:
            feat = finer[4 - index]
            x = F.interpolate(x, feat.shape[-2:]) + convs.adapters[index - 2](feat).repeat_interleave(num_queries, 0)
        x = norm(conv(x)).relu()
    return convs.conv_out(x).view(num_images, num_queries, *finer[0].shape[-2:])


@pytest.mark.parametrize('padded', [True, False])
def test_masks_equal_the_written_out_form(padded):
    head = small_head()
    encoded, finer = sources(padded=padded)
    hidden_states = torch.randn(2, 5, 32)
    expected = written_out(head, hidden_states, encoded, finer)
    torch.testing.assert_close(head(hidden_states, encoded, finer).unflatten(0, (2, 5)), expected, atol=2e-5, rtol=1e-4)
    chosen = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 0, 0, 0]]).bool()
    torch.testing.assert_close(head(hidden_states, encoded, finer, chosen), expected[chosen], atol=2e-5, rtol=1e-4)


def test_gradients_equal_the_written_out_forms():
    head = small_head().double()
    encoded, finer = sources()
    encoded = Encoded(*(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in vars(encoded).values()))
    finer = [feat.double() for feat in finer]
    leaves = [encoded.memory, encoded.projected_map, *finer, torch.randn(2, 3, 32).double()]
    for leaf in leaves:
        leaf.requires_grad_()
    weights = torch.randn(6, *SIZES[0]).double()
    outputs = head(leaves[-1], encoded, finer), written_out(head, leaves[-1], encoded, finer).flatten(0, 1)
    ours, expected = (torch.autograd.grad((out * weights).sum(), [*leaves, *head.parameters()]) for out in outputs)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_map_gain_changes_the_start_alone():
    torch.manual_seed(0)
    plain = DETRMaskHead((6, 7, 9), 32, 8).state_dict()
    torch.manual_seed(0)
    scaled = DETRMaskHead((6, 7, 9), 32, 8, map_gain=40.0).state_dict()
    assert plain.keys() == scaled.keys()
    for name, value in plain.items():
        factor = torch.ones(value.shape)
        if name == 'mask_convs.convs.0.weight':
            factor[:, 32:] = 40
        torch.testing.assert_close(scaled[name], factor * value)


def test_without_gradients_a_few_masks_at_a_time_are_the_same(monkeypatch):
    head = small_head()
    encoded, finer = sources()
    hidden_states = torch.randn(2, 5, 32)
    expected = head(hidden_states, encoded, finer)
    monkeypatch.setattr(mask_head_module, 'CHUNK', 3)
    with torch.no_grad():
        torch.testing.assert_close(head(hidden_states, encoded, finer), expected, atol=1e-5, rtol=1e-4)


def plain_losses(logits, targets, alpha, gamma):
    """Focal and dice loss of one mask as their papers write them, pixel by pixel."""
    p = logits.sigmoid()
    p_t, alpha_t = torch.where(targets > 0, p, 1 - p), torch.where(targets > 0, alpha, 1 - alpha)
    return (-alpha_t * (1 - p_t) ** gamma * p_t.log()).mean(), 1 - (2 * (p * targets).sum() + 1) / (p.sum() + targets.sum() + 1)


@pytest.mark.parametrize('count', [1, 8, 19])
def test_mask_losses_and_gradients_equal_the_formulas(count):
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(count, 6, 9, generator=generator).double().requires_grad_()
    targets = [torch.rand(20 + index % 3, 30, generator=generator) > 0.6 for index in range(count)]
    focal, dice = mask_loss.mask_losses(logits, targets, (24, 36), 0.25, 2.0)
    large = F.interpolate(logits[:, None], (24, 36), mode='bilinear')[:, 0]
    padded = [F.pad(target.double(), (0, 6, 0, 24 - len(target))) for target in targets]
    expected = [plain_losses(one, target, 0.25, 2.0) for one, target in zip(large, padded)]
    weights = torch.rand(2, count, generator=generator).double()
    torch.testing.assert_close(focal.double(), torch.stack([f for f, _ in expected]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(dice.double(), torch.stack([d for _, d in expected]), rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad((focal * weights[0] + dice * weights[1]).sum(), logits)[0]
    loss = sum(w * f + v * d for (f, d), w, v in zip(expected, *weights))
    torch.testing.assert_close(ours, torch.autograd.grad(loss, logits)[0], rtol=1e-4, atol=1e-7)


def test_mask_losses_by_hand():
    """Logit 0 everywhere on 4 pixels, one of them in the mask."""
    focal, dice = mask_loss.mask_losses(torch.zeros(1, 1, 1), [torch.tensor([[1, 0], [0, 0]])], (2, 2), 0.25, 2.0)
    entropy = torch.tensor(2.0).log().item()
    assert focal.item() == pytest.approx((0.25 + 3 * 0.75) * 0.25 * entropy / 4)
    assert dice.item() == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(embed_dims=24), 'embed_dims divisible by 16'),
        (dict(num_heads=5), r'embed_dims \(32\) must be divisible by num_heads \(5\)'),
        (dict(num_heads=4), 'widths that 8 groups divide.*num_heads=4'),
        (dict(in_channels=(6, 7)), 'channels of three feature maps'),
        (dict(map_gain=0), 'map_gain must be above 0'),
        (dict(loss_mask=dict(type='CrossEntropyLoss')), 'loss_mask must be FocalLoss'),
        (dict(loss_dice=dict(weight=2)), 'loss_dice must be DiceLoss with the keys'),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DETRMaskHead(**{**dict(in_channels=(6, 7, 9), embed_dims=32), **arguments})
