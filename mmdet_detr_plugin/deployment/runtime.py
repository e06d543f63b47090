"""Detections from an exported file. Needs onnxruntime, numpy and OpenCV; nothing of torch, mmcv or mmdet is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .description import DETECTIONS, OF_MASKS, Description
from .preprocessing import check_pixels, collate, prepare, read_image
from .segments import Sizes, instance_masks, panoptic_map

SAFE_RUNTIME = (1, 24)
PROVIDERS = {'cpu': ['CPUExecutionProvider'], 'cuda': ['CUDAExecutionProvider', 'CPUExecutionProvider']}


@dataclass
class Detections:
    """Detections of one image, best first.

    Attributes:
        bboxes: (N, 4) float32, xyxy in the original image's pixels.
        scores: (N,) float32.
        labels: (N,) int64.
        masks: (N, H, W) bool, in the original image's pixels; None for a model without masks.
    """

    bboxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> 'Detections':
        """By mask, indices or slice, such as ``found[found.scores > 0.5]``."""
        masks = None if self.masks is None else self.masks[index]
        return Detections(self.bboxes[index], self.scores[index], self.labels[index], masks)


@dataclass
class Result:
    """What ``inference_detector`` returns for an image.

    Attributes:
        pred_instances: the detections; of a model of things and stuff, things alone.
        ori_shape: height and width of the image as it is.
        img_shape: as the network saw it.
        img_path: its file; None for an array.
        pred_panoptic_seg: (H, W) int32, label + 1000 x number of the thing, the number of classes where nothing is; None for a model
            without segments.
    """

    pred_instances: Detections
    ori_shape: tuple[int, int]
    img_shape: tuple[int, int]
    img_path: str | None = None
    pred_panoptic_seg: np.ndarray | None = None


class OnnxDetector:
    """A file that ``tools/export_onnx.py`` wrote, loaded.

    Args:
        file: the ONNX file.
        device: 'cpu', or 'cuda' with onnxruntime-gpu.
        num_threads: of onnxruntime; default: its own choice.

    Attributes:
        classes: names by label.
        dataset_meta: the same under mmdet's name.
        description: all that the file says about itself.
        outputs: names of what ``forward`` returns.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: without onnxruntime, or with one before 1.24, which reads files outside of the model's folder when the model says so.
        ValueError: for an unknown or missing device, or a file of another kind.
    """

    def __init__(self, file: str | Path, device: str = 'cpu', num_threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError('exported detectors need onnxruntime: pip install onnxruntime (or onnxruntime-gpu)') from error
        if tuple(map(int, onnxruntime.__version__.split('.')[:2])) < SAFE_RUNTIME:
            raise ImportError(
                f'onnxruntime {onnxruntime.__version__} lets an ONNX file read files anywhere; 1.24 or later is needed: '
                'pip install -U onnxruntime (or onnxruntime-gpu)'
            )
        if not Path(file).is_file():
            raise FileNotFoundError(f'the exported detector {file} does not exist')
        kind = device.split(':')[0]
        if kind not in PROVIDERS or PROVIDERS[kind][0] not in onnxruntime.get_available_providers():
            raise ValueError(
                f"device must be 'cpu', or 'cuda' where onnxruntime-gpu is installed, got {device!r}; this onnxruntime has "
                f'{onnxruntime.get_available_providers()}'
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=PROVIDERS[kind])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ValueError(f'{file} is no ONNX file that onnxruntime can load: {error}') from error
        self.description = Description.from_metadata(self.session.get_modelmeta().custom_metadata_map, str(file))
        given = {output.name for output in self.session.get_outputs()}
        self.outputs = [*DETECTIONS, *(name for name in OF_MASKS if name in given)]
        self.classes = self.description.classes
        self.dataset_meta = dict(classes=tuple(self.classes))

    def forward(self, images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        """The network alone.

        Args:
            images: (B, 3, H, W) float32, prepared as the metadata says and padded at the bottom and right.
            sizes: (B, 2) int64, heights and widths without padding.

        Returns:
            ``boxes`` (B, N, 4), xyxy as fractions of each image's sides, ``scores`` (B, N) and ``labels`` (B, N). DETR's are in the order
            of its queries, LocalDETR's best first. With masks also ``no_object`` (B, N) and ``masks`` (B, N, H/4, W/4).
        """
        return tuple(self.session.run(self.outputs, dict(images=images, sizes=sizes)))

    def detect(self, pixels: Sequence[np.ndarray]) -> list[Result]:
        """Detections of images (H, W, 3), BGR, uint8, in one batch."""
        prepared = [prepare(image, self.description.preprocess) for image in pixels]
        batch, sizes = collate(prepared, self.description.preprocess)
        outputs = self.forward(batch, sizes)
        results = []
        for image, small, boxes, scores, labels, *of_masks in zip(pixels, prepared, *outputs, strict=True):
            best = np.argsort(-scores, kind='stable')[: self.description.max_per_img]
            best = best[labels[best] < self.description.num_things_classes]  # stuff takes places of max_per_img, as in PyTorch
            height, width = image.shape[:2]
            found = Detections(boxes[best] * np.array([width, height] * 2, dtype=np.float32), scores[best], labels[best])
            result = Result(found, (height, width), small.shape[1:])
            if of_masks:
                self._add_masks(result, best, scores, labels, *of_masks, Sizes(batch.shape[2:], small.shape[1:], (height, width)))
            results.append(result)
        return results

    def _add_masks(
        self,
        result: Result,
        best: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        no_object: np.ndarray,
        masks: np.ndarray,
        sizes: Sizes,
    ) -> None:
        settings = self.description.panoptic
        if settings['instance_on']:
            result.pred_instances.masks = instance_masks(masks[best], sizes)
        if settings['panoptic_on']:
            is_sure = (scores > settings['score_thr']) & (scores > no_object)
            result.pred_panoptic_seg = panoptic_map(
                masks[is_sure], labels[is_sure], sizes, settings['num_things_classes'], len(self.classes)
            )


def init_detector(file: str | Path, device: str = 'cpu', num_threads: int | None = None) -> OnnxDetector:
    """As ``mmdet.apis.init_detector``, but that one file is config and checkpoint; see ``OnnxDetector``."""
    return OnnxDetector(file, device, num_threads)


def inference_detector(
    detector: OnnxDetector, imgs: str | Path | np.ndarray | Sequence[str | Path | np.ndarray], batch_size: int = 1
) -> Result | list[Result]:
    """As ``mmdet.apis.inference_detector``.

    Args:
        imgs: a file, an array (H, W, 3) of BGR pixels, or several of both.
        batch_size: images at a time, which are padded to one size.

    Returns:
        A result for one image, a list for several.

    Raises:
        FileNotFoundError, ValueError: naming the image that is missing or cannot be taken.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, got {batch_size}')
    is_one = isinstance(imgs, (str, Path, np.ndarray))
    images = [imgs] if is_one else list(imgs)
    results = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        pixels = [
            check_pixels(image, f'image {start + number}') if not isinstance(image, (str, Path)) else read_image(image)
            for number, image in enumerate(batch)
        ]
        found = detector.detect(pixels)
        for result, image in zip(found, batch, strict=True):
            result.img_path = str(image) if isinstance(image, (str, Path)) else None
        results += found
    return results[0] if is_one else results
