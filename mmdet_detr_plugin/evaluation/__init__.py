"""Metrics of the plugin; importing this package registers them."""

from .coco_panoptic_metric import CocoPanopticMetric

__all__ = ['CocoPanopticMetric']
