"""Predictions as files, in COCO's panoptic result format: a JSON, and a folder of PNGs with segment ids."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..datasets.panoptic.segment_ids import encode_png
from ..files import write_atomically, write_json
from .panoptic_quality import Segment


class PanopticResultFiles:
    """Writes ``{prefix}.panoptic.json`` and ``{prefix}.panoptic/``. The JSON comes last and whole: while it is there, its PNGs are.

    Args:
        prefix: path and beginning of the names.
    """

    def __init__(self, prefix: str) -> None:
        self.json_path, self.folder = Path(f'{prefix}.panoptic.json'), Path(f'{prefix}.panoptic')

    def start(self) -> None:
        """Before PNGs are replaced: results of an earlier evaluation are none any more."""
        self.json_path.unlink(missing_ok=True)

    def write_image(self, file_name: str, pred_map: np.ndarray, segments: list[Segment], category_ids: Sequence) -> dict:
        """Write an image's PNG.

        Args:
            file_name: of the PNG, in the folder.
            pred_map: (H, W) of segment ids, those of the segments and others for pixels without a prediction.
            category_ids: of the labels.

        Returns:
            The annotation for the JSON, without ``image_id``.

        Raises:
            ValueError: when the name leads out of the folder.
            OSError: when it cannot be written.
        """
        # drive letters, links and the like are the file system's; these are what names can say
        name = PurePosixPath(file_name.replace('\\', '/'))
        if name.is_absolute() or '..' in name.parts:
            raise ValueError(f'the result of {file_name!r} would be written outside of {self.folder}; expected a name without ".." or root')
        ids = np.zeros(pred_map.shape, dtype=np.int64)
        infos = []
        for number, segment in enumerate(segments, start=1):
            mask = pred_map == segment.id
            ids[mask] = number
            infos.append(dict(id=number, category_id=category_ids[segment.label], area=int(mask.sum())))
        write_atomically(encode_png(ids), self.folder / name)
        return dict(file_name=str(name), segments_info=infos)

    def finish(self, annotations: list[dict], **lists: list[dict]) -> None:
        """Write the JSON of all images' annotations, and other lists such as ``images`` and ``categories``."""
        write_json(self.json_path, dict(annotations=annotations, **lists))
