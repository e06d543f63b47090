"""mmengine's storage back-end for files that are either whole or not there."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..files import write_atomically


@register_backend('mmdet_detr_plugin.AtomicLocalBackend', force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(obj, Path(filepath))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        write_atomically(obj.encode(encoding), Path(filepath))
