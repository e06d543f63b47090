"""Data sets of the plugin; importing this package registers them. The generator and converters are imported where they are used."""
from .strict_coco import StrictCocoDataset

__all__ = ['StrictCocoDataset']
