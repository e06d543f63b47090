"""From anyone's DETR checkpoint to anyone else's, by way of the plugin's names.

What a target has no place for (class rows of unused category ids, a mask head where the config has none) is kept in the entry
``detr_source`` of the written file, so that going back is exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor

from .class_rows import RowPlan, coco_layout, layout_of, new_rows, plan_rows
from .formats import FORMATS, MASK_PREFIXES, PLUGIN, Format, recognise, to_other_names, to_plugin_names

CLASS_WEIGHT, CLASS_BIAS = 'bbox_head.fc_cls.weight', 'bbox_head.fc_cls.bias'
QUERIES = 'neck.query_embed.weight'
POINTS = 'neck.reference_logits'
TRAINING_AIDS = 'training_aids.'  # what helped in training only
COUNTER = '.num_batches_tracked'  # of batch norms; without meaning where they are frozen, and missing in most files


@dataclass
class PluginWeights:
    """A DETR's weights under the plugin's names, and what came along with them."""

    state: dict[str, Tensor]
    found: Format  # of the file
    source: Format  # where the weights came from, before the plugin
    classes: tuple[str, ...] | None  # names of the class rows without no-object, where they are known
    aside: dict[str, Tensor] = field(default_factory=dict)  # what has no place in a model, under the source's names
    counters: list[str] = field(default_factory=list)  # batch norms whose counter the source has
    dropped: dict | None = None  # class rows that were left out, and where all rows were
    notes: list[str] = field(default_factory=list)

    @property
    def num_class_rows(self) -> int:
        return len(self.state[CLASS_WEIGHT])


def load(weights: dict[str, Tensor], kept: dict | None = None) -> PluginWeights:
    """Recognise and rename.

    Args:
        weights: as they stand in the file.
        kept: the ``detr_source`` entry of a file that ``plugin_checkpoint`` made.

    Raises:
        ValueError: when the weights are none of a known DETR's, or a tensor has no place.
    """
    aids = [name for name in weights if name.startswith(TRAINING_AIDS)]
    weights = {name: value for name, value in weights.items() if not name.startswith(TRAINING_AIDS)}
    source = recognise(weights)
    state, aside = to_plugin_names(weights, source)
    if missing := [name for name in (CLASS_WEIGHT, CLASS_BIAS, QUERIES) if name not in state]:
        raise ValueError(f'the {source} file lacks what becomes {", ".join(missing)}; it is not whole')
    result = PluginWeights(state, source, source, None, aside)
    if aids:
        result.notes.append(f'{len(aids)} weights of training aids were left out; the network does not use them')
    result.counters = sorted(name for name in state if name.endswith(COUNTER))
    if source is PLUGIN and kept:
        try:
            result.source = FORMATS[kept['format'], kept['variant']]
            result.aside, result.counters, result.dropped = dict(kept['aside']), list(kept['counters']), kept['dropped']
            _check_kept(result)
            _take_mask_head(result)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f'the entry detr_source of the file is not one that tools/convert_checkpoint.py wrote ({type(error).__name__}: {error}); '
                'remove it from the file to convert the weights alone'
            ) from error
    for name in [name for name in state if name.endswith('.running_var')]:
        state.setdefault(name.removesuffix('running_var') + COUNTER[1:], torch.tensor(0))
    return result


def _check_kept(weights: PluginWeights) -> None:
    """The entry comes from a file: its numbers become sizes and indices."""
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.aside.items()):
        raise ValueError('aside must hold tensors by name')
    if (kept := weights.dropped) is None:
        return
    rows, places, total = kept['rows'], kept['dropped'], kept['num_rows']
    if not all(type(row) is int for row in (*rows, *places, total)) or sorted((*rows, *places)) != list(range(total - 1)):
        raise ValueError(f'rows and dropped must be all numbers below num_rows - 1 ({total!r:.20}) once')
    shapes = (len(places), *weights.state[CLASS_WEIGHT].shape[1:]), (len(places),)
    if tuple(tuple(kept[name].shape) for name in ('weight', 'bias')) != shapes:
        raise ValueError(f'weight and bias of the class rows must have the shapes {shapes}')
    for name in ('classes', 'source_classes'):
        if kept[name] is not None and not (isinstance(kept[name], (list, tuple)) and all(isinstance(item, str) for item in kept[name])):
            raise ValueError(f'{name} must be names')


def _take_mask_head(weights: PluginWeights) -> None:
    """A mask head that was kept aside belongs to the weights again."""
    for name in [name for name in weights.aside if name.startswith(MASK_PREFIXES)]:
        ours = weights.source.table.to_plugin(name)
        if ours is None or ours in weights.state:
            raise ValueError(f'aside has {name}, {"which has no place" if ours is None else "and the weights have it too"}')
        weights.state[ours] = weights.aside.pop(name)


def select_classes(weights: PluginWeights, classes: Sequence[str] | None, num_classes: int | None, fine_tune: bool = False) -> RowPlan:
    """Bring the class rows into the order of the wanted classes; see ``class_rows``.

    Args:
        classes: names of the wanted classes. Without names and number, COCO's layouts become COCO's 80 or 133 classes, others
            stay.
        num_classes: how many are wanted.
        fine_tune: start classes that the file lacks anew.

    Raises:
        ValueError: when the rows cannot be told apart.
    """
    restore_classes(weights)  # earlier selections are made from all rows again
    rows, source_classes = weights.num_class_rows, weights.classes
    layout = coco_layout(rows, source_classes) if weights.source.name in ('official', 'hf') else None
    if classes is None and num_classes is None:
        classes, num_classes = (tuple(layout), len(layout)) if layout else (source_classes, rows - 1)
    if fine_tune:
        plan = new_rows(rows, source_classes, classes, layout)
    else:
        plan = plan_rows(rows, source_classes, classes, len(classes) if num_classes is None else num_classes, layout)
    weights.classes = tuple(classes) if classes else None
    if not plan.is_identity:
        weight, bias = weights.state[CLASS_WEIGHT], weights.state[CLASS_BIAS]
        if plan.dropped and not plan.new:
            weights.dropped = dict(
                num_rows=rows,
                rows=list(plan.rows),
                dropped=plan.dropped,
                weight=weight[plan.dropped].clone(),
                bias=bias[plan.dropped].clone(),
                classes=weights.classes,  # the entry is of use as long as the rows are these
                source_classes=source_classes,
            )
        weights.state[CLASS_WEIGHT], weights.state[CLASS_BIAS] = plan.apply(weight, bias)
    if fine_tune:
        known = layout or source_classes or ()
        new = [f'{name!r}{_near(name, known)}' for name in (classes[index] for index in plan.new)]
        kept = [repr(name) for name, row in zip(classes, plan.rows, strict=True) if row is not None]
        weights.notes += [
            f'{len(names)} of {len(plan.rows)} classes {what}: {", ".join(names[:20])}{" ..." if len(names) > 20 else ""}'
            for what, names in (('keep their row', kept), ('start anew', new))
            if names
        ]
    return plan


def _near(name: str, known: Iterable[str]) -> str:
    """A class of the file that may mean the same, for the user to judge."""
    plain = {''.join(filter(str.isalnum, other.lower())): other for other in known}
    near = get_close_matches(''.join(filter(str.isalnum, name.lower())), plain, n=1, cutoff=0.8)
    return f' (the file has {plain[near[0]]!r}, near it; rename the class to keep that row)' if near else ''


def restore_classes(weights: PluginWeights) -> None:
    """Put the class rows that ``select_classes`` left out back in their places; without effect where the rows are others by now."""
    kept, weights.dropped = weights.dropped, None
    if kept is None:
        return
    if kept['classes'] != weights.classes or len(kept['rows']) + 1 != weights.num_class_rows:
        weights.notes.append(f'{len(kept["dropped"])} class rows that were kept aside belong to other classes, and are given up')
        return
    for name, entry in ((CLASS_WEIGHT, 'weight'), (CLASS_BIAS, 'bias')):
        current = weights.state[name]
        whole = current.new_empty(kept['num_rows'], *current.shape[1:])
        whole[kept['dropped']] = kept[entry]
        whole[[*kept['rows'], kept['num_rows'] - 1]] = current
        weights.state[name] = whole
    weights.classes = kept['source_classes']


def number_as_coco(weights: PluginWeights) -> None:
    """COCO's 80 or 133 classes in the rows of their category ids, as facebookresearch/detr expects them; the unused rows never win.

    Without effect on other classes.
    """
    if (found := layout_of(weights.classes)) is None:
        return
    rows, layout = found
    for name, unused in ((CLASS_WEIGHT, 0.0), (CLASS_BIAS, -100.0)):
        current = weights.state[name]
        whole = current.new_full((rows, *current.shape[1:]), unused)
        whole[[*layout.values(), rows - 1]] = current
        weights.state[name] = whole
    weights.classes = None
    weights.notes.append(f'the {len(layout)} classes stand in the {rows - 1} rows of COCO category ids')


def resize_queries(weights: PluginWeights, num_queries: int) -> None:
    """Cut the object queries, or extend them by new ones drawn as ``nn.Embedding`` draws them."""
    if num_queries < 1:
        raise ValueError(f'the number of queries must be at least 1, got {num_queries}')
    queries = weights.state[QUERIES]
    old = len(queries)
    if num_queries == old:
        return
    if POINTS in weights.state:
        raise ValueError(f'the queries belong to the points of a grid ({POINTS}), and their number cannot be changed; train another model')
    weights.state[QUERIES] = torch.cat(
        (queries[:num_queries], torch.randn(max(0, num_queries - old), queries.shape[1], dtype=queries.dtype))
    )
    what = 'were cut off, and with them some detections' if num_queries < old else 'are new and know nothing yet'
    weights.notes.append(f'queries: {old} -> {num_queries}; {abs(num_queries - old)} {what}; train before use')


def check_against(weights: PluginWeights, expected: dict[str, tuple[int, ...]], what: str) -> None:
    """Every parameter filled, every tensor used.

    Raises:
        ValueError: with all differences.
    """
    got = {name: tuple(value.shape) for name, value in weights.state.items()}
    problems = [f'missing in the file: {name} {shape}' for name, shape in expected.items() if name not in got]
    problems += [f'without a place in the model: {name} {shape}' for name, shape in got.items() if name not in expected]
    problems += [f'{name} has shape {got[name]}, expected {shape}' for name, shape in expected.items() if got.get(name, shape) != shape]
    if problems:
        raise ValueError(f'the {weights.found} weights do not fit {what}; {len(problems)} differences:\n  ' + '\n  '.join(sorted(problems)))


def plugin_checkpoint(weights: PluginWeights) -> dict:
    """What is saved for the plugin: it loads through ``load_from``, ``init_detector`` and ``DetInferencer``."""
    kept = dict(
        format=weights.source.name, variant=weights.source.variant, aside=weights.aside, counters=weights.counters, dropped=weights.dropped
    )
    meta = dict(dataset_meta=dict(classes=weights.classes)) if weights.classes else {}
    return dict(meta=meta, state_dict=weights.state, detr_source=kept)


def other_weights(weights: PluginWeights, target: Format, is_return: bool) -> dict[str, Tensor]:
    """The weights under another implementation's names.

    Args:
        is_return: they go back to where they came from, with the counters and the rest that came along.
    """

    def is_kept(name: str) -> bool:
        if name.endswith(COUNTER):
            return name in weights.counters if is_return else target.name == 'mmdet'
        return True

    state = {name: value for name, value in weights.state.items() if is_kept(name)}
    return to_other_names(state, target, weights.aside if is_return else {})
