"""What is trained: runs that differ in one thing each. Another question is another plan here."""

from dataclasses import dataclass, field

NO_DENSE = {'model.training_aids.dense': None}
NO_POINTS = {'model.neck.reference_points': None, 'model.bbox_head.zero_init_boxes': False}
NOT_NEAR = {'model.neck.look_near': 0.0}
LONG_WAVES = {'model.neck.position_encoding.scale': 6.283185, 'model.neck.position_encoding.temperature': 10000.0}  # the paper's
PAPERS_START = NO_POINTS | NOT_NEAR | LONG_WAVES
GROUPS = {'model.training_aids.groups': dict(type='mmdet_detr_plugin.QueryGroups', num_groups=2)}
DENOISING = {'model.training_aids.denoising': dict(type='mmdet_detr_plugin.DenoisingQueries', num_classes=80)}
NO_NORM = {'model.neck.norm_cfg': None}
FOUR_CONVS = {  # the head of mmdet's configs for Faster R-CNN from scratch, with batch norm as in the backbone
    'model.roi_head.bbox_head.type': 'Shared4Conv1FCBBoxHead',
    'model.roi_head.bbox_head.conv_out_channels': 128,
    'model.roi_head.bbox_head.norm_cfg': dict(type='BN'),
}
FULL_SIZE = {
    'model.neck.out_channels': 256,
    'model.rpn_head.in_channels': 256,
    'model.rpn_head.feat_channels': 256,
    'model.roi_head.bbox_roi_extractor.out_channels': 256,
    'model.roi_head.bbox_head.in_channels': 256,
    'model.roi_head.bbox_head.fc_out_channels': 1024,
    'model.train_cfg.rpn_proposal.nms_pre': 2000,
    'model.train_cfg.rpn_proposal.max_per_img': 1000,
    'model.train_cfg.rcnn.sampler.num': 512,
    'model.test_cfg.rpn.nms_pre': 1000,
    'model.test_cfg.rpn.max_per_img': 1000,
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of its JSON file.
        config: name of a shipped config.
        what: for people.
        options: values that replace the config's, by dotted name.
    """

    name: str
    config: str
    what: str
    options: dict = field(default_factory=dict)


PLAIN, AIDED, LOCAL, FASTER_RCNN = (
    f'{name}_1xb4-10e_shapes' for name in ('detr_r18-half', 'detr-aided_r18-half', 'local-detr_r18-half', 'faster-rcnn_r18-half_fpn')
)
SMALL_PLAIN, SMALL_AIDED, SMALL_LOCAL, SMALL_FASTER_RCNN = (
    f'{name}_1xb2-12e_coco320' for name in ('detr_r18-half', 'detr-aided_r18-half', 'local-detr_r18-half', 'faster-rcnn_r18-half_fpn')
)
ITERATIONS, BATCH_SIZE = 1000, 4  # of every training on shapes


def _sgd(rate: float) -> dict:
    return {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=rate, momentum=0.9, weight_decay=1e-4)}


def _adamw(rate: float) -> dict:
    return {'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=rate, weight_decay=0.05)}


def _of_images(number: int) -> dict:
    """The first images only, for the same number of iterations; the rate drops after four fifths of them."""
    epochs = ITERATIONS * BATCH_SIZE // number
    return {
        'train_dataloader.dataset.indices': number,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.1.end': epochs,
        'param_scheduler.1.milestones': [epochs * 4 // 5],
    }


PLANS = {
    'images': [
        Run(f'{name}-{number}', config, f'{what}, {number} images', _of_images(number))
        for number in (50, 100, 200, 400, 800)
        for name, config, what in (
            ('detr', PLAIN, 'plain DETR'),
            ('aided', AIDED, 'plain DETR with all that helps it'),
            ('local', LOCAL, 'LocalDETR'),
            ('faster-rcnn', FASTER_RCNN, 'Faster R-CNN'),
        )
    ],
    'parts': [
        Run(name, LOCAL, what, _of_images(800) | changes)
        for name, what, changes in (
            ('local', 'LocalDETR', {}),
            ('local-no-jitter', '- jittered boxes', {'model.bbox_head.jitter': None}),
            ('local-no-context', '- view beyond the box', {'model.bbox_head.view_scale': 1.0}),
            ('local-one-layer', 'one decoder layer', {'model.bbox_head.num_decoder_layers': 1}),
            ('local-full-steps', 'boxes move five times as far', {'model.bbox_head.delta_scale': 1.0}),
            *((f'local-rate-{rate}', f'rate {rate}', {'optim_wrapper.optimizer.lr': rate}) for rate in (0.0005, 0.002)),
        )
    ],
    'baseline': [
        Run(name, FASTER_RCNN, what, _of_images(800) | changes)
        for name, what, changes in (
            *((f'sgd-{rate}', f'SGD at {rate}', _sgd(rate)) for rate in (0.01, 0.02, 0.04)),
            *((f'adamw-{rate}', f'AdamW at {rate}', _adamw(rate)) for rate in (0.0005, 0.001, 0.002, 0.004)),
            ('sgd-no-norm', 'SGD at 0.02, no norm in the FPN', _sgd(0.02) | NO_NORM),
            ('adamw-no-norm', 'AdamW at 0.001, no norm in the FPN', _adamw(0.001) | NO_NORM),
            ('sgd-four-convs', 'SGD at 0.02, four convolutions with norm in the head', _sgd(0.02) | FOUR_CONVS),
            ('adamw-four-convs', 'AdamW at 0.001, four convolutions with norm in the head', _adamw(0.001) | FOUR_CONVS),
            ('adamw-full-size', "AdamW at 0.001, channels and proposals of mmdet's base config", _adamw(0.001) | FULL_SIZE),
        )
    ],
    'parts-data': [
        Run(name, SMALL_LOCAL, what, changes)
        for name, what, changes in (
            ('local', 'LocalDETR', {}),
            *(
                (f'local-steps-{scale}', f'boxes move {scale} times as far as without scaling', {'model.bbox_head.delta_scale': scale})
                for scale in (0.1, 0.5, 1.0)
            ),
            *((f'local-rate-{rate}', f'rate {rate}', {'optim_wrapper.optimizer.lr': rate}) for rate in (0.00025, 0.001)),
        )
    ],
    'baseline-data': [
        Run(name, SMALL_FASTER_RCNN, what, changes)
        for name, what, changes in (
            *((f'sgd-{rate}', f'SGD at {rate}', _sgd(rate)) for rate in (0.005, 0.01, 0.02)),
            *((f'adamw-{rate}', f'AdamW at {rate}', _adamw(rate)) for rate in (0.00025, 0.0005, 0.001)),
        )
    ],
    'aids': [
        Run('detr', SMALL_PLAIN, 'plain DETR'),
        Run('aided', SMALL_AIDED, 'plain DETR with all that helps it'),
        Run('aided-no-dense', SMALL_AIDED, '- dense head', NO_DENSE),
        Run('aided-no-points', SMALL_AIDED, '- reference points and boxes that start at them', NO_POINTS),
        Run('aided-no-near', SMALL_AIDED, '- attention that starts near', NOT_NEAR),
        Run('aided-long-waves', SMALL_AIDED, '- positions in short waves', LONG_WAVES),
        Run('aided-learned-points', SMALL_AIDED, 'reference points that are learned', {'model.neck.reference_points': 'learned'}),
        Run('aided-groups', SMALL_AIDED, '+ two groups of queries', GROUPS),
        Run('aided-denoising', SMALL_AIDED, '+ denoising queries', DENOISING),
        # each alone: the network of the paper, at the rate and clipping of the aided one; the better start alone is aided-no-dense
        Run('none', SMALL_AIDED, 'plain DETR at the rate and clipping of the others', PAPERS_START | NO_DENSE),
        Run('points', SMALL_AIDED, 'reference points and boxes that start at them alone', NO_DENSE | NOT_NEAR | LONG_WAVES),
        Run('waves', SMALL_AIDED, 'positions in short waves alone', NO_DENSE | NO_POINTS | NOT_NEAR),
        Run('dense', SMALL_AIDED, 'dense head alone', PAPERS_START),
        Run('groups', SMALL_AIDED, 'two groups of queries alone', PAPERS_START | NO_DENSE | GROUPS),
        Run('denoising', SMALL_AIDED, 'denoising queries alone', PAPERS_START | NO_DENSE | DENOISING),
    ],
}

OWN_DATA = ('aids', 'parts-data', 'baseline-data')  # plans on a data set of one's own
