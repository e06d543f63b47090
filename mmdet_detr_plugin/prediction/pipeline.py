"""The steps of a config's test pipeline, which every image takes to the network: read from a file, or given as pixels."""

import copy

import cv2
from mmcv.image import io as image_io
from mmengine.config import Config

from ..config_files import dataset_chains, kind

ANNOTATIONS = ('LoadAnnotations', 'LoadPanopticAnnotations')


def inference_steps(cfg: Config) -> list[dict]:
    """The steps from an image's file on, without those that load annotations, as a copy.

    They are those of the data set inside whatever wraps it, then the wrappers' own.

    Raises:
        ValueError: when there is no test pipeline, it does not begin with loading an image in OpenCV's colours, or several test data sets
            have different ones.
    """
    pipelines = [
        [step for dataset in reversed(chain) for step in dataset.get('pipeline') or [] if not kind(step).endswith(ANNOTATIONS)]
        for chain in dataset_chains(cfg.get('test_dataloader') or {})
    ]
    steps = pipelines[0]
    if not steps or kind(steps[0]) != 'LoadImageFromFile':
        raise ValueError(
            f'test_dataloader.dataset.pipeline must start with LoadImageFromFile, got {[step.get("type") for step in steps]}: what happens '
            'to an image before the network sees it would be unknown; give the config the test pipeline that the model is evaluated with'
        )
    if any(other != steps for other in pipelines):
        raise ValueError(
            f'the {len(pipelines)} test data sets have different pipelines; expected one for all, because an image from elsewhere belongs '
            'to none of them. Make them equal, or leave one data set in test_dataloader'
        )
    _check_loading(steps[0])
    return copy.deepcopy(steps)


def _check_loading(step: dict) -> None:
    """Images are read by ``read_frames`` and ``deployment.preprocessing.read_image``, as ``LoadImageFromFile`` does by default."""
    color_type = step.get('color_type', 'color')
    backend = step.get('imdecode_backend', 'cv2') or image_io.imread_backend  # None: mmcv's, which use_backend changes
    if color_type not in ('color', cv2.IMREAD_COLOR) or backend != 'cv2':
        raise ValueError(
            f"images are read here with color_type='color' and imdecode_backend='cv2', and the test pipeline has {color_type!r} and "
            f'{backend!r}, which can give other pixels; leave both out of its LoadImageFromFile, and evaluate whether the model is as good'
        )


def steps_from_pixels(cfg: Config) -> list[dict]:
    """``inference_steps`` for images that are arrays already, under mmdet's scope.

    Raises:
        ValueError: see ``inference_steps``.
    """
    steps = inference_steps(cfg)
    steps[0]['type'] = 'mmdet.LoadImageFromNDArray'  # keeps to_float32, without which resizing rounds to whole numbers
    for step in steps:
        if isinstance(step['type'], str) and '.' not in step['type']:
            step['type'] = f'mmdet.{step["type"]}'
        if kind(step) == 'PackDetInputs' and 'meta_keys' in step:
            step['meta_keys'] = tuple(key for key in step['meta_keys'] if key != 'img_path')
    return steps
