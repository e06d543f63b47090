# LocalDETR for small images, trained from scratch: the backbone of faster-rcnn_r18_fpn_scratch.py, half of the channels behind it.
# Residual branches start open (zero_init_residual=False): scales that start at zero need more steps to open than a short schedule has.
# delta_scale: AdamW's steps move boxes a fifth as far (three seeds on raccoon, 12 epochs: AP 0.263 instead of 0.229)
_base_ = './local-detr_r18.py'

model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, zero_init_residual=False, init_cfg=None),
    neck=dict(embed_dims=128, feedforward_channels=512, norm_cfg=dict(_delete_=True, type='BN')),
    bbox_head=dict(
        embed_dims=128,
        feedforward_channels=512,
        num_queries=50,
        value_dims=32,
        num_dense_convs=1,
        norm_cfg=dict(_delete_=True, type='BN'),
        jitter=dict(copies=4),
        delta_scale=0.2,
    ),
    test_cfg=dict(max_per_img=50),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0, bias_decay_mult=0),
    clip_grad=dict(max_norm=10),
)
