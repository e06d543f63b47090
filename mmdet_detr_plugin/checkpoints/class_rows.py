"""Which row of a classification layer means which class.

facebookresearch/detr numbers its rows by COCO category id: 91 rows and no-object for detection, 250 and no-object for panoptic; ids that no
category has are never trained. Other layouts have one row for each class, in order, and no-object last.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from torch import Tensor

UNUSED_THING_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
THING_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_THING_IDS)
# fmt: off
STUFF_IDS = (
    92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154, 155, 156, 159, 161, 166,
    168, 171, 175, 176, 177, 178, 180, 181, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200,
)
# fmt: on
COCO_CLASSES = tuple(CocoDataset.METAINFO['classes'])
COCO_ROWS = dict(zip(COCO_CLASSES, THING_IDS, strict=True))
PANOPTIC_ROWS = dict(zip(CocoPanopticDataset.METAINFO['classes'], THING_IDS + STUFF_IDS, strict=True))
LAYOUTS = {92: COCO_ROWS, 251: PANOPTIC_ROWS}  # by the number of rows, no-object included


@dataclass(frozen=True)
class RowPlan:
    """``rows[k]`` is the source row of class k, None for a class that starts anew; no-object keeps the last row."""

    rows: tuple[int | None, ...]
    source_rows: int
    reason: str

    @property
    def dropped(self) -> list[int]:
        used = {*self.rows, self.source_rows - 1}
        return [row for row in range(self.source_rows) if row not in used]

    @property
    def new(self) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row is None]

    @property
    def is_identity(self) -> bool:
        return self.rows == tuple(range(self.source_rows - 1))

    def apply(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The rows in the order of the classes; new ones drawn as ``nn.Linear`` draws them."""
        fresh = torch.nn.Linear(weight.shape[1], len(self.rows) + 1)
        new_weight, new_bias = fresh.weight.detach().to(weight.dtype), fresh.bias.detach().to(bias.dtype)
        for index, row in enumerate((*self.rows, self.source_rows - 1)):
            if row is not None:
                new_weight[index], new_bias[index] = weight[row], bias[row]
        return new_weight, new_bias


def coco_layout(source_rows: int, names: Sequence[str] | None) -> dict[str, int] | None:
    """COCO's numbering of the rows, where a file of facebookresearch/detr or HF has as many rows and no names that say otherwise.

    HF's published panoptic models call their 250 classes LABEL_0, LABEL_1, ..., which says nothing.
    """
    agrees = not names or all(row < len(names) and names[row] == name for name, row in COCO_ROWS.items())
    is_numbered = source_rows == 251 and tuple(names or ()) == tuple(f'LABEL_{row}' for row in range(250))
    return LAYOUTS.get(source_rows) if agrees or is_numbered else None


def layout_of(classes: Sequence[str] | None) -> tuple[int, dict[str, int]] | None:
    """Number of rows, no-object included, and COCO's numbering for exactly COCO's classes in mmdet's order."""
    return next(((rows, layout) for rows, layout in LAYOUTS.items() if classes and tuple(layout) == tuple(classes)), None)


def row_names(rows: int) -> tuple[str, ...] | None:
    """Names in row order for COCO's layouts, ``N/A`` where an id is no category."""
    if rows not in LAYOUTS:
        return None
    name_of = {row: name for name, row in LAYOUTS[rows].items()}
    return tuple(name_of.get(row, 'N/A') for row in range(rows - 1))


def plan_rows(
    source_rows: int,
    source_classes: Sequence[str] | None,
    classes: Sequence[str] | None,
    num_classes: int,
    layout: dict[str, int] | None = None,
) -> RowPlan:
    """Find each class's row, by category where the layout is COCO's, else by name where both sides have names, else in order.

    Args:
        source_rows: rows of the file's classification layer, no-object included.
        source_classes: their names, where the file or its configuration says them.
        classes: names of the wanted classes, where they are known.
        num_classes: how many classes are wanted.
        layout: ``coco_layout``.

    Raises:
        ValueError: when the counts do not match and no names say which row is which, or the names say that the classes are others.
    """
    if classes and layout and source_rows != num_classes + 1:
        return _all_named(layout, source_rows, classes, f'COCO category ids, {source_rows - 1} rows and no-object')
    if classes and source_classes and set(source_classes) >= set(classes):
        return _all_named(_numbered(source_classes), source_rows, classes, 'class names')
    if source_rows == num_classes + 1:
        if classes and _are_names(source_classes):
            raise ValueError(
                f'the file and the config have {num_classes} classes each, but not the same: {_only_in(source_classes, classes)} in the '
                f'file, {_only_in(classes, source_classes)} in the config. Rows taken in order would be given other meanings; prepare '
                'fine-tuning with --classes FILE, which keeps the rows of names that both have'
            )
        return RowPlan(tuple(range(num_classes)), source_rows, 'one to one')
    raise ValueError(
        f'the file has {source_rows} class rows ({source_rows - 1} classes and no-object), the config has {num_classes} classes, and no '
        f'names say which row is which; set num_classes={source_rows - 1} in the config, or prepare fine-tuning with --classes FILE'
    )


def _are_names(classes: Sequence[str] | None) -> bool:
    """Whether classes are called something: HF numbers those that nobody has named as LABEL_0, LABEL_1, ..."""
    return bool(classes) and not all(re.fullmatch(r'LABEL_\d+', name) for name in classes)


def _only_in(classes: Sequence[str], others: Sequence[str]) -> str:
    return ', '.join(repr(name) for name in [name for name in classes if name not in others][:8]) or 'fewer names'


def _all_named(row_of: dict[str, int], source_rows: int, classes: Sequence[str], reason: str) -> RowPlan:
    missing = [name for name in classes if name not in row_of]
    if missing:
        raise ValueError(
            f'the file has {source_rows} class rows ({reason}), none of them for {", ".join(map(repr, missing[:8]))} of the config; '
            'prepare fine-tuning with --classes FILE, which starts new classes anew'
        )
    return RowPlan(tuple(row_of[name] for name in classes), source_rows, reason)


def new_rows(
    source_rows: int, source_classes: Sequence[str] | None, classes: Sequence[str], layout: dict[str, int] | None = None
) -> RowPlan:
    """For fine-tuning: rows of the same class name are kept, all others start anew."""
    row_of = layout or (_numbered(source_classes) if source_classes else {})
    return RowPlan(tuple(row_of.get(name) for name in classes), source_rows, 'class names, for fine-tuning')


def _numbered(classes: Sequence[str]) -> dict[str, int]:
    if len(set(classes)) < len(classes):
        raise ValueError(f'the file gives several class rows the same name, so that names do not tell them apart: {list(classes)[:12]} ...')
    return {name: row for row, name in enumerate(classes)}
