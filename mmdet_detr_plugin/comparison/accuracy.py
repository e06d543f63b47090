"""COCO's box metrics by pycocotools, from a file of detections."""

import contextlib
import io
import json
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ('AP', 'AP50', 'AP75', 'AP S', 'AP M', 'AP L')


def quiet():
    """pycocotools prints its progress."""
    return contextlib.redirect_stdout(io.StringIO())


def box_metrics(annotation_file: Path, detection_file: Path) -> dict[str, float]:
    """The six AP figures of COCO.

    Args:
        annotation_file: COCO JSON.
        detection_file: list of ``image_id, category_id, bbox (xywh), score``, as mmdet's ``CocoMetric`` writes with ``outfile_prefix``.

    Returns:
        Values in [0, 1] by the names in ``METRICS``; -1 where no object of that size exists.

    Raises:
        FileNotFoundError: when a file is missing.
    """
    for path in (annotation_file, detection_file):
        if not Path(path).is_file():
            raise FileNotFoundError(f'{path} does not exist; run tools/test.py with test_evaluator.outfile_prefix first')
    detections = json.loads(Path(detection_file).read_text())
    if not detections:
        return dict.fromkeys(METRICS, 0.0)
    with quiet():
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats[:6])))
