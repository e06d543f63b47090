"""Where each query slot of a DETR predicts its boxes over a data set (paper, section 4.3 and figure 7).

Letters: I images, Q queries.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import nn

from ..comparison.inference import layer_outputs
from ..devices import at_least_float32, to_host
from ..models.detector import DETR
from ..models.local_detr.detector import LocalDETR

SMALL = 0.04  # of the image's area; the paper gives no number
# the paper's green, red and blue, in Okabe and Ito's shades
KINDS = {'small': '#009E73', 'large horizontal': '#D55E00', 'large vertical': '#0072B2'}
COLUMNS = 5


@dataclass
class QuerySlots:
    """Boxes of every query on every image, whatever their class.

    Attributes:
        boxes_cxcywh_norm: (I, Q, 4).
        image_sizes: (I, 2), widths and heights in pixels.
        image_ids: (I,).
    """

    boxes_cxcywh_norm: np.ndarray
    image_sizes: np.ndarray
    image_ids: list[int]

    @property
    def kinds(self) -> np.ndarray:
        """(I, Q), number of the kind in ``KINDS``. Small: less than ``SMALL`` of the image's area; horizontal: at least as wide as high, in
        pixels."""
        sides = self.boxes_cxcywh_norm[..., 2:]
        width, height = np.moveaxis(sides * self.image_sizes[:, None], -1, 0)
        return np.where(sides.prod(-1) < SMALL, 0, np.where(width >= height, 1, 2))

    def summary(self) -> dict:
        """As ``slots.json`` holds it: means and standard deviations over images, the share of each kind, and all boxes, by slot."""
        kinds, boxes = self.kinds, self.boxes_cxcywh_norm
        slots = [
            dict(
                slot=slot,
                mean_cxcywh_norm=_rounded(boxes[:, slot].mean(0)),
                std_cxcywh_norm=_rounded(boxes[:, slot].std(0)),
                shares={kind: round(float((kinds[:, slot] == number).mean()), 4) for number, kind in enumerate(KINDS)},
                boxes_cxcywh_norm=_rounded(boxes[:, slot]),
            )
            for slot in range(boxes.shape[1])
        ]
        return dict(small_area=SMALL, image_ids=self.image_ids, slots=slots)


def check_has_slots(model: nn.Module) -> None:
    """Refuse other models.

    Raises:
        ValueError: for a model without query slots.
    """
    if not isinstance(model, DETR):
        reason = ', which chooses its queries anew in every image: a slot has no role there' if isinstance(model, LocalDETR) else ''
        raise ValueError(f"query slots are the learned queries of the plugin's DETR, got {type(model).__name__}{reason}")


def collect_slots(model: nn.Module, batches: Iterable) -> QuerySlots:
    """Run a model over batches of a loader.

    Raises:
        ValueError: for a model without query slots, or when there is no image.
    """
    check_has_slots(model)
    boxes, sizes, ids = [], [], []
    for samples, _, layers in layer_outputs(model, batches):
        boxes.append(to_host(at_least_float32(layers[-1])))
        sizes += [sample.ori_shape[1::-1] for sample in samples]
        ids += [sample.img_id for sample in samples]
    if not ids:
        raise ValueError('the test data holds no image; nothing can be said about query slots')
    return QuerySlots(np.concatenate(boxes), np.array(sizes), ids)


def slots_figure(slots: QuerySlots, number: int | None = 20) -> Figure:
    """The centre of every box, a panel for each of the first slots.

    Args:
        number: how many slots; None = all.
    """
    num_slots = slots.boxes_cxcywh_norm.shape[1]
    shown = num_slots if number is None else min(number, num_slots)
    columns = min(COLUMNS, shown)
    rows = -(-shown // columns)
    kinds = slots.kinds
    with matplotlib.rc_context({'text.parse_math': False}):
        size = (1.7 * columns + 0.3, 1.85 * rows + 1.0)
        figure = Figure(figsize=size, dpi=110)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        dot = float(np.clip(60 / np.sqrt(len(kinds)), 1, 14))
        for slot, axis in enumerate(grid.flat):
            if slot >= shown:
                axis.set_axis_off()
                continue
            for kind, colour in enumerate(KINDS.values()):
                x, y = slots.boxes_cxcywh_norm[kinds[:, slot] == kind, slot, :2].T
                axis.scatter(x, y, s=dot, c=colour, alpha=0.7, linewidths=0)
            axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect='equal')
            axis.set_title(f'slot {slot}', fontsize=8, pad=2)
        names = (f'small (under {SMALL:.0%} of the image)', 'large, wider than high', 'large, higher than wide')
        marks = [figure.axes[0].scatter([], [], s=25, c=colour) for colour in KINDS.values()]
        figure.legend(marks, names, loc='lower left', ncols=min(3, columns), fontsize=8, frameon=False, bbox_to_anchor=(0, 0))
        title = f'Centres of the boxes of {shown} of {num_slots} query slots on {len(kinds)} images'
        figure.suptitle(title, fontsize=9.5, x=0.02, ha='left', y=1 - 0.1 / size[1], va='top')
        bottom = 0.4 if columns >= 3 else 0.75
        figure.subplots_adjust(0.02, bottom / size[1], 0.98, 1 - 0.55 / size[1], wspace=0.06, hspace=0.18)
        return figure


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(float), 4).tolist()
