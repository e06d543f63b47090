"""DETR (Carion et al. 2020) as a plugin of MMDetection 3.x. Importing this package loads nothing heavy."""

from .config_files import config_path

__version__ = '0.1.0'
__all__ = ['__version__', 'config_path']
