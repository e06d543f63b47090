"""The plugin's Panoptic FPN is mmdet's, with instances beside the map."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config

from ...conftest import ROOT
from .builders import panoptic_batch

SMALL = 'shapes/panoptic-fpn_r18-half_fpn_1xb4-10e_shapes-panoptic.py'


def differences(ours, theirs, path: str = '') -> set[str]:
    """Where two configs differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = set(ours) | set(theirs)
        return set().union(*(differences(ours.get(key), theirs.get(key), f'{path}.{key}') for key in keys))
    return set() if ours == theirs else {path.lstrip('.')}


def test_config_is_mmdets_but_for_what_it_says():
    ours = Config.fromfile(ROOT / 'configs' / 'panoptic_fpn' / 'panoptic-fpn_r50_fpn_8xb2-1x_coco-panoptic.py')
    theirs = get_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    assert differences(ours.model.to_dict(), theirs.model.to_dict()) - {'_scope_'} == {
        'type',
        'backbone.type',
        'backbone.init_cfg.type',
        'backbone.init_cfg.checkpoint',
        'test_cfg.rcnn.score_thr',
        'test_cfg.panoptic.score_thr',
    }
    assert ours.model.test_cfg.panoptic.score_thr == theirs.model.test_cfg.rcnn.score_thr
    assert not differences(ours.optim_wrapper.to_dict(), theirs.optim_wrapper.to_dict())


@pytest.fixture(scope='module')
def pair():
    """Ours, with scores around its threshold, and mmdet's with the same weights and that threshold for boxes."""
    config = Config.fromfile(ROOT / 'configs' / SMALL).model
    config.test_cfg.rcnn.score_thr, config.test_cfg.panoptic.score_thr, config.test_cfg.panoptic.stuff_area_limit = 0.1, 0.8, 10
    config.roi_head.mask_head.norm_cfg = dict(type='GN', num_groups=4)  # so that masks are some of the pixels
    torch.manual_seed(3)
    ours = MODELS.build(copy.deepcopy(config))
    ours.init_weights()
    torch.nn.init.normal_(ours.roi_head.bbox_head.fc_cls.weight, std=0.02)
    torch.nn.init.normal_(ours.semantic_head.conv_logits.weight, std=0.3)
    theirs_config = copy.deepcopy(config)
    theirs_config.type, theirs_config.test_cfg.rcnn.score_thr = 'PanopticFPN', config.test_cfg.panoptic.score_thr
    theirs = MODELS.build(theirs_config)
    theirs.load_state_dict(ours.state_dict())
    return ours.eval(), theirs.eval()


@torch.no_grad()
def test_map_is_mmdets_at_its_threshold_and_instances_are_all(pair):
    ours, theirs = pair
    batch = panoptic_batch([(128, 128), (96, 128)], [0, 0])
    expected = theirs.predict(**copy.deepcopy(batch))
    instances = []
    for mine, his in zip(ours.predict(**batch), expected, strict=True):
        assert torch.equal(mine.pred_panoptic_seg.sem_seg, his.pred_panoptic_seg.sem_seg)
        found = mine.pred_instances
        assert found.masks.dtype == torch.bool and found.masks.shape == (len(found), *mine.ori_shape[:2])
        instances.append(found)
    scores, maps = torch.cat([found.scores for found in instances]), [his.pred_panoptic_seg.sem_seg for his in expected]
    assert scores.min() < 0.8 < scores.max() and max(int(seg.max()) for seg in maps) > 1000  # there is something to tell apart


def test_config_is_not_written_into():
    config = Config.fromfile(ROOT / 'configs' / SMALL).model
    before = copy.deepcopy(config.to_dict())
    MODELS.build(config)
    assert config.to_dict() == before
