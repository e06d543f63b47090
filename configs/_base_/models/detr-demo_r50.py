# The minimal DETR of the authors' notebook, in about 50 lines: torch's transformer, no masks, no auxiliary losses (paper, appendix A.6).
_base_ = './detr_r50.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='mmdet_detr_plugin.DemoNeck',
        in_channels=2048,
        # the notebook's, for which weights were released; the paper's listing has 1
        feature_scale=0.1,
    ),
    bbox_head=dict(aux_loss=False, num_box_layers=1),
)
