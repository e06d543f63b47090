"""The report's chapters, in order. A chapter without data is left out, or says why there is none."""

from ..blocks import Report
from .accuracy import differences, models_table
from .classes import classes
from .conditions import audit, preflight
from .detections import duplicates, errors, padding
from .examples import examples
from .health import health
from .learning import learning
from .repeat import repeat
from .scores import calibration, precision_recall
from .summary import alerts, facts, summary

CHAPTERS = (
    *(summary, models_table, differences, learning, padding, duplicates, errors, classes, calibration, precision_recall),
    *(examples, health, audit, preflight, repeat),
)


def build_report(results: dict) -> Report:
    """results.json as blocks of text, tables and charts."""
    chapters = (chapter(results) for chapter in CHAPTERS)
    return Report(results['title'], facts(results), alerts(results), tuple(chapter for chapter in chapters if chapter is not None))
