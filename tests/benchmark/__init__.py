"""Tests of mmdet_detr_plugin.benchmark."""
