"""Packaging of mmdet_detr_plugin. Exact versions for development stand in tools/versions.txt; here are the ranges that can work.

Configs and Python tools travel in wheels as ``mmdet_detr_plugin/.mim``, where OpenMMLab's ``mim`` looks for them.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"^__version__ = '(.+)'", (ROOT / 'mmdet_detr_plugin' / '__init__.py').read_text(), re.M)[1]
MIM = Path('mmdet_detr_plugin') / '.mim'
ONNX = ['onnx>=1.19', 'onnxscript>=0.5', 'onnxruntime>=1.24']  # earlier ones let a model read files outside of its folder


class BuildWithMim(build_py):
    """Adds configs and tools to the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout has them beside the package
            return
        shutil.rmtree(Path(self.build_lib) / MIM, ignore_errors=True)  # of an earlier build
        for target, source in self._mim_files():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else [str(target) for target, _ in self._mim_files()])

    def _mim_files(self) -> list[tuple[Path, Path]]:
        found = [('configs', '*.py'), ('configs', '*.yml'), ('tools', '*.py')]
        sources = [path for folder, pattern in found for path in sorted((ROOT / folder).rglob(pattern))]
        return [(Path(self.build_lib) / MIM / source.relative_to(ROOT), source) for source in sources]


setup(
    name='mmdet_detr_plugin',
    version=VERSION,
    description='DETR for MMDetection 3.x: set prediction without anchors or NMS, beside Faster R-CNN under equal conditions',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='object detection, DETR, transformer, set prediction, MMDetection',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.11,<3.13',
    packages=find_packages(include=['mmdet_detr_plugin', 'mmdet_detr_plugin.*']),
    package_data={f'mmdet_detr_plugin.{part}': ['templates/*'] for part in ('comparison.report', 'visualization')},
    cmdclass=dict(build_py=BuildWithMim),
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
        'rich>=13',  # progress of tools/compare.py
        'jinja2>=3.1',  # its report
        'packaging>=23',  # tools/doctor.py
    ],
    extras_require=dict(
        tests=[
            *ONNX,
            'pytest>=8',
            'pytest-xdist>=3.7',
            'hypothesis>=6',
            'ruff',
            'safetensors>=0.4',
            'torchmetrics>=1.4',
            'transformers>=5.1',  # names of DETR's weights
        ],
        hf=['safetensors>=0.4'],  # tools/convert_checkpoint.py, from and to HF transformers
        onnx=ONNX,  # tools/export_onnx.py and check_onnx.py; running an exported file takes onnxruntime, numpy and OpenCV alone
    ),
)
