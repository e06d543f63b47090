"""DETR (Carion et al. 2020) as a plugin of MMDetection 3.x. Importing this package loads nothing heavy."""

__version__ = '0.1.0'
