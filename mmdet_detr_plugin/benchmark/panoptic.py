"""Time and memory of training panoptic DETR; gradients are compared first."""

from . import panoptic_peers, peers
from .results import Row
from .rows import in_own_process, largest_difference, milliseconds
from .timing import full_float32

OBJECTS = 7  # things, beside two kinds of stuff: COCO's mean
TARGET = {'all queries': 0.8}


def training_row(device: str, rounds: int, size: tuple[int, int] = (800, 1066)) -> Row:
    """A training step of one image."""
    row = Row('panoptic', f'panoptic training step, R50, 1 x 3 x {size[0]} x {size[1]}, fp32', target=TARGET)
    with full_float32():
        difference = _gradient_difference((160, 192), device)
    if not difference <= 1e-3:
        raise AssertionError(f'panoptic: gradients of the plugin and of all queries differ by {difference:.1e} of their norm')
    row.notes.append(f'fp32 gradients of plugin and all queries differ by {difference:.1e} of their norm at most')
    steps = {name: panoptic_peers.step_of(name, size, OBJECTS, device) for name in ('plugin', 'all queries')}
    row.values = milliseconds(steps, rounds)
    return row


def memory_row(device: str, size: tuple[int, int] = (800, 1066), hf_size: tuple[int, int] = (400, 533)) -> list[Row]:
    """Peak memory of that step, each in a process of its own; HF's on an image of a fourth of the pixels, which it fills 8 GiB with."""
    rows = []
    for name, work, shape, others in (
        ('panoptic-memory', 'peak memory of that training step, weights included', size, ['all queries']),
        ('panoptic-memory-hf', f'the same, {hf_size[0]} x {hf_size[1]}', hf_size, ['all queries', 'HF'] if peers.HAS_HF else []),
    ):
        row = Row(name, work, 'MiB', target=TARGET)
        for model in ['plugin', *others] if others else []:
            found = in_own_process('panoptic_memory', model, device, *map(str, shape))
            row.values[model] = [found['peak']]
        rows.append(row)
    return rows


def _gradient_difference(size: tuple[int, int], device: str) -> float:
    """The largest, over all parameters, of ||ours - theirs|| / ||theirs||."""
    gradients = {}
    for name in ('plugin', 'all queries'):
        model = panoptic_peers.BUILDERS[name](device).train()
        model.parse_losses(model.loss(*panoptic_peers.batch(*size, OBJECTS, device)))[0].backward()
        gradients[name] = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    return largest_difference(*gradients.values())
