"""What an exported file says about itself, in its metadata: plain strings, so that any program can read them.

| key | value |
|---|---|
| ``format`` | ``mmdet_detr_plugin.onnx/1`` |
| ``classes`` | JSON list of the names, by label |
| ``preprocess`` | JSON: ``resize`` (``scale`` [long, short side], ``keep_ratio``) or null, ``mean`` and ``std`` in the order of the network's channels, ``channels`` (``RGB`` or ``BGR``), ``pad_value``, ``pad_size_divisor`` |
| ``max_per_img`` | the most detections of an image |
| ``precision`` | ``fp32`` or ``fp16``, of weights and products; inputs and outputs are float32 |
| ``model``, ``config``, ``plugin_version`` | where it comes from |
"""  # noqa: E501

import json
from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = 'mmdet_detr_plugin.onnx/1'


@dataclass
class Description:
    """The metadata's content.

    Attributes:
        preprocess: as in the table above.
        origin: ``model``, ``config`` and ``plugin_version``.
    """

    classes: list[str]
    preprocess: dict
    max_per_img: int
    precision: str
    origin: dict[str, str]

    def as_metadata(self) -> dict[str, str]:
        found = dict(format=FORMAT, classes=json.dumps(self.classes), preprocess=json.dumps(self.preprocess))
        return {**found, 'max_per_img': str(self.max_per_img), 'precision': self.precision, **self.origin}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> 'Description':
        """Read it back.

        Raises:
            ValueError: when the file is of another kind.
        """
        if metadata.get('format') != FORMAT:
            raise ValueError(
                f'{file} does not come from tools/export_onnx.py: its metadata should have format={FORMAT!r}, it has '
                f'{metadata.get("format")!r}. Export the model again.'
            )
        origin = {key: metadata.get(key, '') for key in ('model', 'config', 'plugin_version')}
        classes, preprocess = json.loads(metadata['classes']), json.loads(metadata['preprocess'])
        return cls(classes, preprocess, int(metadata['max_per_img']), metadata['precision'], origin)
