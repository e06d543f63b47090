"""What happens to the detections: padding, suppression, duplicates, kinds of errors."""

from ..blocks import Figure, Section, Table
from ..charts import bar_chart
from ..formatting import MISSING, fixed, joined, percent, signed
from .curve_figure import curve_figure
from .models import legend, name_cell, where

ERRORS = ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed')
TOTALS = {'false_positive': 'all false positives', 'false_negative': 'all false negatives'}


def padding(results: dict) -> Section | None:
    measured = where(results, lambda model: model.get('padding'))
    if not measured:
        return None
    rows = []
    for series in measured:
        effect = results['models'][series]['padding']
        single, padded = effect['single'], effect['padded']
        change = None if None in (single, padded) else padded - single
        shares = (str(effect['batch_size']), percent(effect['padded_pixels']))
        rows.append((name_cell(results, series), fixed(single), fixed(padded), signed(change), *shares))
    columns = ('Model', 'AP, one image at a time', 'AP, padded batch', 'Change', 'Images in a batch', 'Padding (% of pixels)')
    reading = (
        'Detections should not depend on what an image is batched with, so a change near 0 is right; '
        'this does not tell what more padding than in these batches would do.'
    )
    return Section('padding', 'Effect of padding', reading, (Table('AP with and without padding, means over seeds', columns, tuple(rows)),))


def duplicates(results: dict) -> Section | None:
    measured = where(results, lambda model: model.get('nms') or model.get('layers') or model.get('duplicates_per_object') is not None)
    if not measured:
        return None
    columns = ('Model', 'NMS belongs to it', 'IoU of NMS', 'AP without NMS', 'AP with NMS', 'AP50 without NMS', 'AP50 with NMS')
    rows = []
    for series in measured:
        model = results['models'][series]
        nms = model.get('nms') or {}
        without, suppressed = nms.get('without') or {}, nms.get('with') or {}
        own = MISSING if not nms else 'yes' if nms['has_nms'] else 'no'
        figures = (fixed(of.get(metric)) for metric in ('AP', 'AP50') for of in (without, suppressed))
        rows.append((name_cell(results, series), own, fixed(nms.get('iou'), 2), *figures, fixed(model.get('duplicates_per_object'), 2)))
    blocks = [Table('AP with and without suppression, means over seeds', (*columns, 'Duplicates per object'), tuple(rows))]
    by_layer = layer_figure(results, 'duplicates_per_object', 'Duplicates by decoder layer', 'duplicates per object', 2)
    reading = (
        'A model that predicts sets keeps its AP when NMS (non-maximum suppression) is left out, and NMS adds nothing to it; '
        'a duplicate is a further detection of a found object, with a score from that of the best F1 on, and this does not tell why '
        'the network makes it.'
    )
    return Section('duplicates', 'NMS and duplicates', reading, (*blocks, *([by_layer] if by_layer else [])))


def layer_figure(results: dict, quantity: str, title: str, label: str, digits: int) -> Figure | None:
    """A quantity against decoder layers, for the models that have layers."""
    values = {
        series: {layer['layer']: layer[quantity] for layer in model.get('layers') or [] if layer.get(quantity) is not None}
        for series, model in enumerate(results['models'])
    }
    caption = f'{title}; the last layer is what the model gives out'
    return curve_figure(
        results,
        values,
        key=f'layers-{quantity.lower()}',
        title=title,
        caption=caption,
        x_label='decoder layer',
        y_label=label,
        digits=digits,
    )


def errors(results: dict) -> Section | None:
    measured = where(results, lambda model: model.get('errors'))
    if not measured:
        return None
    values = {series: results['models'][series]['errors'] for series in measured}
    names = dict(legend(results, measured))
    gist = []
    for series, found in values.items():
        known = [kind for kind in ERRORS if found.get(kind) is not None]
        worst = sorted(known, key=lambda kind: -found[kind])[:2]
        gist.append(f'{names[series]}: most lost by {joined(f"{kind} ({fixed(found[kind])})" for kind in worst)}')
    bars = {series: [found.get(kind) or 0.0 for kind in ERRORS] for series, found in values.items()}
    panel = bar_chart(
        'errors', 'AP50 lost by kind of error', '; '.join(gist), ERRORS, bars, 'AP50 that would be gained without these errors'
    )
    labels = {**dict.fromkeys(ERRORS), **TOTALS}
    rows = tuple((label or kind, *(fixed(found.get(kind)) for found in values.values())) for kind, label in labels.items())
    table = Table('AP50 that would be gained without these errors, means over seeds', ('Kind of error', *names.values()), rows, folded=True)
    figure = Figure('Kinds of errors, as TIDE defines them', (panel,), legend(results, measured), table)
    reading = (
        'Each figure is the AP50 that would be gained if only this kind of error were mended (localisation: right class, IoU below 0.5; '
        'background: nothing there; missed: no detection at all); they overlap, so they do not add up to what is missing to 1.'
    )
    return Section('errors', 'Kinds of errors', reading, (figure,))
