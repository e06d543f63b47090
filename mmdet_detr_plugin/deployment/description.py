"""What an exported file says about itself, in its metadata: plain strings, so that any program can read them.

| key | value |
|---|---|
| ``format`` | ``mmdet_detr_plugin.onnx/1`` |
| ``classes`` | JSON list of the names, by label |
| ``preprocess`` | JSON: ``resize`` (``scale`` [long, short side], ``keep_ratio``) or null, ``mean`` and ``std`` in the order of the network's channels, ``channels`` (``RGB`` or ``BGR``), ``pad_value``, ``pad_size_divisor`` |
| ``max_per_img`` | the most detections of an image |
| ``precision`` | ``fp32`` or ``fp16``, of weights and products; inputs and outputs are float32 |
| ``panoptic`` | models of things and stuff alone; JSON: ``num_things_classes`` (labels below it are things, the only ones that are detections), ``score_thr`` of segments, ``panoptic_on``, ``instance_on``; whether there are masks, the outputs tell |
| ``model``, ``config``, ``plugin_version`` | where it comes from |
"""  # noqa: E501

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = 'mmdet_detr_plugin.onnx/1'
DETECTIONS, OF_MASKS = ('boxes', 'scores', 'labels'), ('no_object', 'masks')  # outputs; the latter where there is a mask head
LARGEST_SIDE = 32767  # more than OpenCV and JPEG handle


@dataclass
class Description:
    """The metadata's content.

    Attributes:
        preprocess: as in the table above.
        origin: ``model``, ``config`` and ``plugin_version``.
        panoptic: as in the table; None for a model that does not tell things and stuff apart.
    """

    classes: list[str]
    preprocess: dict
    max_per_img: int
    precision: str
    origin: dict[str, str]
    panoptic: dict | None = None

    @property
    def num_things_classes(self) -> int:
        """Detections are of labels below this."""
        return len(self.classes) if self.panoptic is None else self.panoptic['num_things_classes']

    def as_metadata(self) -> dict[str, str]:
        found = dict(format=FORMAT, classes=json.dumps(self.classes), preprocess=json.dumps(self.preprocess))
        if self.panoptic is not None:
            found['panoptic'] = json.dumps(self.panoptic)
        return {**found, 'max_per_img': str(self.max_per_img), 'precision': self.precision, **self.origin}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> 'Description':
        """Read it back.

        Raises:
            ValueError: when the file is of another kind, or its metadata is not as in the table above.
        """
        if metadata.get('format') != FORMAT:
            raise ValueError(
                f'{file} does not come from tools/export_onnx.py: its metadata should have format={FORMAT!r}, it has '
                f'{metadata.get("format")!r}. Export the model again.'
            )
        origin = {key: metadata.get(key, '') for key in ('model', 'config', 'plugin_version')}
        try:
            classes, preprocess = json.loads(metadata['classes']), json.loads(metadata['preprocess'])
            panoptic = json.loads(metadata['panoptic']) if 'panoptic' in metadata else None
            found = cls(classes, preprocess, int(metadata['max_per_img']), metadata['precision'], origin, panoptic)
            found._check()
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            reason = f'{type(error).__name__}: {str(error)[:200]}'
            raise ValueError(f'{file} says wrong things about itself ({reason}); export the model again') from error
        return found

    def _check(self) -> None:
        """Numbers out of these ranges would fill the memory, or make every image NaN."""
        if not (isinstance(self.classes, list) and all(isinstance(name, str) for name in self.classes)):
            raise ValueError(f'classes must be a list of names, got {self.classes!r:.80}')
        resize = self.preprocess['resize']
        sizes = [self.preprocess['pad_size_divisor'], *(resize['scale'] if resize else (1, 1))]
        if not (len(sizes) == 3 and all(type(size) is int and 1 <= size <= LARGEST_SIDE for size in sizes)):
            raise ValueError(f'sides and pad_size_divisor must be whole numbers from 1 to {LARGEST_SIDE}, got {sizes!r:.80}')
        mean, std = self.preprocess['mean'], self.preprocess['std']
        if not (len(mean) == len(std) == 3 and all(math.isfinite(value) for value in mean) and all(0 < value < math.inf for value in std)):
            raise ValueError(f'mean and std must be three numbers each, std above 0, got {mean!r:.80} and {std!r:.80}')
        if self.preprocess['channels'] not in ('RGB', 'BGR') or not math.isfinite(self.preprocess['pad_value']):
            raise ValueError(f'channels must be RGB or BGR and pad_value a number, got {self.preprocess!r:.200}')
        if resize and not isinstance(resize['keep_ratio'], bool):
            raise ValueError(f'keep_ratio must be true or false, got {resize["keep_ratio"]!r:.80}')
        if self.max_per_img < 1:
            raise ValueError(f'max_per_img must be at least 1, got {self.max_per_img}')
        if self.panoptic is not None:
            things, threshold = self.panoptic['num_things_classes'], self.panoptic['score_thr']
            switches = self.panoptic['panoptic_on'], self.panoptic['instance_on']
            if not (type(things) is int and 0 <= things <= len(self.classes) and 0 <= threshold <= 1 and set(switches) <= {True, False}):
                raise ValueError(f'panoptic must hold a number of classes, a score and two switches, got {self.panoptic!r:.200}')
