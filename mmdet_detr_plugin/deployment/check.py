"""Does an exported file find what the detector in PyTorch finds: image by image, and in AP."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.config import Config

from ..comparison.analysis.coco_input import read_annotations
from ..comparison.analysis.matches import match
from ..config_files import annotation_file, image_folder
from ..datasets.panoptic.segments_as_instances import things_as_instances
from ..prediction.inputs import Frame, find_inputs, is_video, read_frames
from ..prediction.predictor import Predictor, together_or_alone
from .runtime import Detections, OnnxDetector, Result
from .segments import INSTANCE_OFFSET

LEAST_SCORE = 0.01  # of the detections that are looked at one by one; below, the order of equal scores decides which are among the best


@dataclass
class Agreement:
    """What was found.

    Attributes:
        problems: images that one or both could not take, with the reasons.
        images: how many were compared.
        box_differences: for every detection of score ``LEAST_SCORE`` and more of either side, the largest difference of a coordinate to its
            nearest counterpart of the same class, as a fraction of the image's side; infinite without one.
        score_differences: the same of its score.
        segment_differences: of each image of a model with segments, the share of its pixels to which both give other classes.
        pytorch: COCO's six figures; None without annotations.
        onnx: the same of the exported file.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    images: int = 0
    box_differences: list[float] = field(default_factory=list)
    score_differences: list[float] = field(default_factory=list)
    segment_differences: list[float] = field(default_factory=list)
    pytorch: dict[str, float | None] | None = None
    onnx: dict[str, float | None] | None = None

    def beyond(self, tolerance: float) -> int:
        """How many detections differ by more."""
        pairs = zip(self.box_differences, self.score_differences, strict=True)
        return sum(not max(box, score) <= tolerance for box, score in pairs)

    def add(self, ours: Detections, theirs: Detections, shape: tuple[int, int]) -> None:
        """Compare both sides' detections of an image of this height and width."""
        scale = np.array([shape[1], shape[0]] * 2, dtype=np.float32)
        self.images += 1
        for some, others in ((ours, theirs), (theirs, ours)):
            some = some[some.scores >= LEAST_SCORE]
            boxes = np.abs(some.bboxes[:, None] - others.bboxes[None]) / scale  # (N, M, 4)
            boxes, scores = boxes.max(-1), np.abs(some.scores[:, None] - others.scores[None])
            distance = np.where(some.labels[:, None] == others.labels[None], np.maximum(boxes, scores), np.inf)
            nearest = distance.argmin(1) if len(others) else np.zeros(len(some), dtype=int)
            for row, other in enumerate(nearest):
                has_counterpart = len(others) and np.isfinite(distance[row, other])
                self.box_differences.append(float(boxes[row, other]) if has_counterpart else np.inf)
                self.score_differences.append(float(scores[row, other]) if has_counterpart else np.inf)


def images_to_compare(
    cfg: Config, inputs: Sequence[str] = (), annotations: Path | None = None
) -> tuple[list[Path], dict | None, list[int]]:
    """What ``check`` takes.

    Args:
        cfg: whose test images and annotations are taken without ``inputs``.
        inputs: images, folders and patterns, videos are left out; the one folder of the images, with ``annotations``.
        annotations: COCO file.

    Returns:
        Files, the annotation file's content (None without one), and the files' image ids in it.

    Raises:
        FileNotFoundError: for an input or annotation file that is not there.
    """
    if inputs and annotations is None:
        return [path for path in find_inputs(inputs) if not is_video(path)], None, []
    folder = Path(inputs[0]) if inputs else image_folder(cfg.test_dataloader)
    content = things_as_instances(json.loads((annotations or annotation_file(cfg.test_dataloader)).read_text()))
    images = content['images']
    return [folder / image['file_name'] for image in images], content, [image['id'] for image in images]


def check(
    predictor: Predictor, detector: OnnxDetector, files: Sequence[Path], annotations: dict | None = None, image_ids: Sequence[int] = ()
) -> Agreement:
    """Run both on the same files, from reading them on, in the predictor's batches.

    Args:
        annotations: content of a COCO file, for AP, whose categories are found by name.
        image_ids: of the files, in it.

    Raises:
        ValueError: when both have other classes, or a class is no category.
    """
    if list(predictor.classes) != list(detector.classes):
        raise ValueError(f'the checkpoint has the classes {list(predictor.classes)[:5]} ..., the file {list(detector.classes)[:5]} ...')
    with_boxes = detector.classes[: detector.description.num_things_classes]
    ids = [] if annotations is None else _category_ids(annotations, with_boxes)
    truth = None if annotations is None else read_annotations(annotations, ids)  # classes that the model lacks are not asked for
    found = Agreement()
    results: tuple[list, list] = ([], [])
    for start in range(0, len(files), predictor.batch_size):
        chosen = range(start, min(start + predictor.batch_size, len(files)))
        frames = [next(iter(read_frames(files[index]))) for index in chosen]
        for index, (frame, sample), other in zip(chosen, predictor(frames), _run(detector, frames), strict=True):
            if sample is None or isinstance(other, str):
                reasons = frame.problem or 'fine', other if isinstance(other, str) else 'fine'
                found.problems.append((frame.name, 'PyTorch: {}; ONNX: {}'.format(*reasons)))
                continue
            ours, theirs = _arrays(sample), other.pred_instances
            found.add(ours, theirs, frame.pixels.shape[:2])
            if other.pred_panoptic_seg is not None:
                seg = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
                found.segment_differences.append(float((seg % INSTANCE_OFFSET != other.pred_panoptic_seg % INSTANCE_OFFSET).mean()))
            if annotations is not None:
                for result, instances in zip(results, (ours, theirs), strict=True):
                    result += _as_results(image_ids[index], instances, ids)
    if annotations is not None:
        found.pytorch, found.onnx = (match(truth, result).metrics() for result in results)
    return found


def _run(detector: OnnxDetector, frames: Sequence[Frame]) -> list[Result | str]:
    """In one batch; what cannot be taken becomes its reason."""
    answers: list[Result | str] = [frame.problem or '' for frame in frames]
    readable = [index for index, frame in enumerate(frames) if frame.problem is None]
    # onnxruntime's exceptions have no common base
    for index, found in together_or_alone(readable, lambda group: detector.detect([frames[i].pixels for i in group]), Exception):
        answers[index] = f'{type(found).__name__}: {found}' if isinstance(found, Exception) else found
    return answers


def _arrays(sample: DetDataSample) -> Detections:
    found = sample.pred_instances.cpu()
    return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy())


def _category_ids(annotations: dict, classes: Sequence[str]) -> list[int]:
    ids = {category['name']: category['id'] for category in annotations['categories']}
    missing = [name for name in classes if name not in ids]
    if missing:
        raise ValueError(f'the annotations have no category {missing[0]!r} ({len(missing)} of the {len(classes)} classes are missing)')
    return [ids[name] for name in classes]


def _as_results(image_id: int, found: Detections, category_ids: Sequence[int]) -> list[dict]:
    boxes = np.concatenate((found.bboxes[:, :2], found.bboxes[:, 2:] - found.bboxes[:, :2]), axis=1)
    rows = zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [dict(image_id=image_id, category_id=category_ids[label], bbox=box, score=score) for box, score, label in rows]
