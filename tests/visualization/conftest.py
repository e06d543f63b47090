"""Small trained-looking models on files, and what is seen of one image."""

from functools import cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_detr_plugin.prediction.inputs import read_frames
from mmdet_detr_plugin.prediction.predictor import Predictor
from mmdet_detr_plugin.prediction.trained_model import load_model
from mmdet_detr_plugin.visualization.image_attention import look_at

from ..builders import randomize_norm_layers
from ..conftest import ROOT

CONFIGS = dict(
    detr='detr_r18-half_1xb4-10e_shapes',
    local='local-detr_r18-half_1xb4-10e_shapes',
    faster_rcnn='faster-rcnn_r18-half_fpn_1xb4-10e_shapes',
    panoptic='panoptic-detr-aided_r18-half_1xb4-10e_shapes-panoptic',
    panoptic_local='panoptic-local-detr_r18-half_1xb4-10e_shapes-panoptic',
)


def load(kind: str) -> Config:
    """Images are resized to 150 x 100, by other factors for width and height, and padded to multiples of 32."""
    cfg = Config.fromfile(ROOT / f'configs/shapes/{CONFIGS[kind]}.py')
    for loader in (cfg.test_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline[2] = dict(type='Resize', scale=(150, 100), keep_ratio=False)
    cfg.model.data_preprocessor.pad_size_divisor = 32
    return cfg


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """Random weights of a kind, as a file."""
    folder = tmp_path_factory.mktemp('weights')

    def written(kind: str):
        path = folder / f'{kind}.pth'
        if not path.is_file():
            torch.manual_seed(0)
            model = load_model(load(kind), None, 'cpu')
            if kind != 'faster_rcnn':
                randomize_norm_layers(model)
            for layer in getattr(model.bbox_head, 'layers', ()) if kind != 'faster_rcnn' else ():  # refine, as they do once trained
                torch.nn.init.normal_(layer.box_mlp.layers[-1].weight, std=0.05)
            torch.save(dict(state_dict=model.state_dict()), path)
        return path

    return written


@pytest.fixture
def photo(tmp_path):
    """90 x 200 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (9, 20, 3), dtype=np.uint8)
    path = tmp_path / 'photo $1$ & <b>.png'
    cv2.imwrite(str(path), cv2.resize(pixels, (200, 90), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture(scope='session')
def predictors(weights):
    """The predictor of a kind; one for all tests."""
    return cache(lambda kind: Predictor(load(kind), weights(kind)))


@pytest.fixture
def look(predictors, photo):
    """What is seen of the photo: ``look(kind, score_thr=..., top=...)``."""

    def looked(kind: str, path=photo, **settings):
        (frame,) = read_frames(path)
        return look_at(predictors(kind), frame, **settings)

    return looked
