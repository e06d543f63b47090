"""Packaging of mmdet_detr_plugin. Exact versions for development stand in tools/versions.txt; here are the ranges that can work."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"^__version__ = '(.+)'", (ROOT / 'mmdet_detr_plugin' / '__init__.py').read_text(), re.M)[1]

setup(
    name='mmdet_detr_plugin',
    version=VERSION,
    description='DETR for MMDetection 3.x: set prediction without anchors or NMS, beside Faster R-CNN under equal conditions',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11,<3.13',
    packages=find_packages(include=['mmdet_detr_plugin', 'mmdet_detr_plugin.*']),
    install_requires=[
        'torch>=2.6',  # torch.load reads weights only by default
        'setuptools<81',  # mmengine imports pkg_resources
        'mmengine>=0.10.7,<0.11',
        'mmcv>=2.1.0,<2.2.0',
        'mmdet>=3.3.0,<3.4',
        'numpy>=1.26',
        'scipy>=1.11',
        'pycocotools>=2.0.7',
        'matplotlib>=3.8',
        'pillow>=10',
        'pyyaml>=6',
        'tqdm>=4',
    ],
    extras_require={'tests': ['pytest>=8', 'hypothesis>=6', 'ruff']},
)
