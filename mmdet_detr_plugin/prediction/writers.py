"""Detections as files: drawn images and videos, COCO JSON, CSV; segments in COCO's panoptic format."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from ..evaluation.panoptic_quality import Segment
from ..evaluation.panoptic_results import PanopticResultFiles
from ..files import write_atomically, write_json
from ..visualization.visualizer import DetLocalVisualizer
from .inputs import Frame, is_video

NOTHING_FOUND = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long))
COLUMNS = ('file', 'frame', 'class', 'score', 'x', 'y', 'width', 'height')


class PredictionWriter:
    """Collects detections and writes ``predictions.json`` and ``predictions.csv`` at the end; drawn images as they come.

    Of models with segments also ``predictions.panoptic.json``, with a PNG of segment ids for each image in ``predictions.panoptic/``.

    Args:
        folder: of everything.
        classes: names by label.
        score_thr: detections below are left out everywhere.
        draw: whether to draw.
        num_things_classes: labels from this on are stuff; None = all are things.
        inputs: files that no drawing may replace.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        score_thr: float,
        draw: bool = True,
        num_things_classes: int | None = None,
        inputs: Iterable[Path] = (),
    ) -> None:
        self.folder, self.classes, self.score_thr = folder, classes, score_thr
        self.num_things_classes = len(classes) if num_things_classes is None else num_things_classes
        self.visualizer = DetLocalVisualizer() if draw else None
        if self.visualizer is not None:
            shown = tuple(name.replace('$', r'\$') for name in classes)  # else matplotlib reads formulas
            self.visualizer.dataset_meta = dict(classes=shown, palette='random' if len(classes) > 80 else 'coco')
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.problems: list[tuple[str, str]] = []
        self.not_drawn: list[tuple[str, str]] = []
        self.drawn: set[Path] = set()
        self.inputs = {path.resolve() for path in inputs}
        self.panoptic = PanopticResultFiles(str(folder / 'predictions'))
        self.segments: list[dict] = []
        self.video: tuple[Path, cv2.VideoWriter | None] | None = None  # no writer where it could not be opened

    def add(self, frame: Frame, sample: DetDataSample | None) -> int:
        """Take one result; returns the number of detections kept."""
        if frame.problem is not None or sample is None:
            self.problems.append((frame.name, frame.problem or 'no result'))
            return 0
        found = sample.get('pred_instances', NOTHING_FOUND).cpu()  # models of segments may have no instances
        found = found[found.scores >= self.score_thr]
        image_id = len(self.images) + 1
        height, width = frame.pixels.shape[:2]
        self.images.append(dict(id=image_id, file_name=str(frame.source), frame=frame.number, width=width, height=height))
        boxes = found.bboxes.clone()
        boxes[:, 2:] -= boxes[:, :2]
        masks = found.masks if 'masks' in found else [None] * len(found)
        for box, score, label, mask in zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks, strict=True):
            x, y, w, h = (round(value, 2) for value in box)
            entry = dict(id=len(self.annotations) + 1, image_id=image_id, category_id=label + 1, bbox=[x, y, w, h])
            entry |= {'area': round(w * h, 2), 'iscrowd': 0, 'score': round(score, 5)}
            if mask is not None:
                entry |= _segmentation(mask)
            self.annotations.append(entry)
        if 'pred_panoptic_seg' in sample:
            self._add_segments(image_id, frame, sample.pred_panoptic_seg.sem_seg[0].cpu().numpy())
        if self.visualizer is not None:
            try:
                self._draw(frame, sample)
            except Exception as error:  # a name that is too long, a text that matplotlib cannot set: what was found is kept
                self.not_drawn.append((frame.name, f'{type(error).__name__}: {error}'))
        return len(found)

    def finish(self) -> list[Path]:
        """Write the two files, whole or not at all."""
        self._end_video()
        categories = [dict(id=label + 1, name=name) for label, name in enumerate(self.classes)]
        content = dict(images=self.images, annotations=self.annotations, categories=categories)
        paths = [self.folder / 'predictions.json', self.folder / 'predictions.csv']
        write_json(paths[0], content)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        images = {image['id']: image for image in self.images}
        for item in self.annotations:
            image = images[item['image_id']]
            frame = '' if image['frame'] is None else image['frame']
            writer.writerow([image['file_name'], frame, self.classes[item['category_id'] - 1], item['score'], *item['bbox']])
        write_atomically(text.getvalue().encode(errors='backslashreplace'), paths[1])  # names on disk need not be UTF-8
        if self.segments:
            things_and_stuff = [item | dict(isthing=int(item['id'] <= self.num_things_classes)) for item in categories]
            self.panoptic.finish(self.segments, images=self.images, categories=things_and_stuff)
            paths.append(self.panoptic.json_path)
        return paths

    def _add_segments(self, image_id: int, frame: Frame, pred_map: np.ndarray) -> None:
        if not self.segments:
            self.panoptic.start()
        segments = [Segment(value, value % INSTANCE_OFFSET) for value in np.unique(pred_map).tolist()]
        segments = [segment for segment in segments if segment.label < len(self.classes)]
        stem = frame.source.stem if frame.number is None else f'{frame.source.stem}-{frame.number:06d}'
        entry = self.panoptic.write_image(f'{image_id:06d}-{stem}.png', pred_map, segments, range(1, len(self.classes) + 1))
        self.segments.append(dict(image_id=image_id, **entry))

    def _draw(self, frame: Frame, sample: DetDataSample) -> None:
        pixels = np.ascontiguousarray(frame.pixels[..., ::-1])
        self.visualizer.add_datasample(frame.name, pixels, sample, draw_gt=False, show=False, pred_score_thr=self.score_thr)
        drawn = np.ascontiguousarray(self.visualizer.get_image()[..., ::-1])
        if is_video(frame.source):
            self._write_video_frame(frame, drawn)
        else:
            path = self._free_path(frame.source.stem, '.jpg')
            there, content = cv2.imencode('.jpg', drawn)
            if not there:
                raise ValueError(f'an image of {drawn.shape[1]} x {drawn.shape[0]} pixels does not fit a JPEG file')
            write_atomically(content.tobytes(), path)

    def _write_video_frame(self, frame: Frame, drawn: np.ndarray) -> None:
        if self.video is None or self.video[0] != frame.source:
            self._end_video()
            rate = _writable_rate(cv2.VideoCapture(str(frame.source)).get(cv2.CAP_PROP_FPS) or 25.0)
            path = self._free_path(frame.source.stem, '.mp4')
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, drawn.shape[1::-1])
            self.video = (frame.source, writer if writer.isOpened() else None)
            if self.video[1] is None:
                raise ValueError(f'no MPEG-4 file of {drawn.shape[1]} x {drawn.shape[0]} pixels at {rate:g} frames a second can be written')
        if self.video[1] is not None:
            self.video[1].write(drawn)

    def _end_video(self) -> None:
        if self.video is not None and self.video[1] is not None:
            self.video[1].release()
        self.video = None

    def _free_path(self, stem: str, suffix: str) -> Path:
        """Images of one name in several folders do not overwrite each other, nor what is read."""
        path = self.folder / 'drawn' / f'{stem}{suffix}'
        number = 2
        while path in self.drawn or path.resolve() in self.inputs:
            path = self.folder / 'drawn' / f'{stem}-{number}{suffix}'
            number += 1
        self.drawn.add(path)
        return path


def _writable_rate(rate: float) -> float:
    """The nearest that MPEG-4 can state: as a fraction whose numerator is below 65536, which OpenCV finds in steps of ten."""
    return round(rate, 3 if rate <= 65.5 else 2 if rate <= 655 else None)


def _segmentation(mask) -> dict:
    """A mask (H, W) as COCO has it, and its area."""
    rle = coco_mask.encode(np.asfortranarray(np.asarray(mask).astype(np.uint8)))
    return dict(segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode()), area=float(coco_mask.area(rle)))
