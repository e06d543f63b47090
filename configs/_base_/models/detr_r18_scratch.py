# DETR for small images, trained from scratch: normalisation that learns, memory at stride 16, half of the layers. What it shares with
# the paper's: everything else. One rate for all layers, because the backbone is as new as the rest.
# Residual branches start open (zero_init_residual=False): scales that start at zero need more steps to open than a short schedule has.
_base_ = './detr_r18.py'

model = dict(
    backbone=dict(
        type='mmdet_detr_plugin.ResNetDC5',
        zero_init_residual=False,
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(num_encoder_layers=3, num_decoder_layers=3, feedforward_channels=1024),
)

# twice the paper's rate of the transformer, and its clipping; with five times (5e-4) the encoder collapses (detr-aided_r18_scratch.py)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=1.0, decay_mult=1.0)}))
