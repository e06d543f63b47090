"""Weights of every DETR in and out: facebookresearch/detr, HF transformers, mmdet, detrex."""
