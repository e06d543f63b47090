"""The detector: images and data samples in, losses or detections out (paper, section 3.2 and figure 2)."""

import copy
from abc import abstractmethod
from collections.abc import Sequence

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmengine.model import ModuleDict
from torch import Tensor

from ..devices import to_device
from ..registry import MODELS
from .detr_head import DETRHead
from .parts import build_model_part
from .random_weights import RefusesRandomWeights
from .targets import Targets, collate_targets
from .training_aids.training_step import TrainingStep
from .transformer_neck import Encoded, TransformerNeck


class SetDetector(RefusesRandomWeights, BaseDetector):
    """Backbone, neck and a head that predicts a set: no anchors, no NMS.

    Args:
        backbone: config.
        neck: config.
        bbox_head: config.
        train_cfg: handed to the head.
        test_cfg: handed to the head.
        data_preprocessor: config; mmdet's ``DetDataPreprocessor``.

    Raises:
        ValueError: when a part's type is unknown or without the scope it needs, or neck and head have other numbers of channels.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        # Copies, because some of mmdet's classes write into the config they were given.
        bbox_head = copy.deepcopy(bbox_head)
        bbox_head.update({key: copy.deepcopy(cfg) for key, cfg in (('train_cfg', train_cfg), ('test_cfg', test_cfg)) if cfg is not None})
        self.backbone = build_model_part(copy.deepcopy(backbone), 'backbone')
        self.neck = build_model_part(copy.deepcopy(neck), 'neck')
        self.bbox_head = build_model_part(bbox_head, 'bbox_head')
        if self.neck.embed_dims != self.bbox_head.embed_dims:
            raise ValueError(
                f'neck.embed_dims is {self.neck.embed_dims}, bbox_head.embed_dims is {self.bbox_head.embed_dims}; they must be equal'
            )

    @abstractmethod
    def layer_outputs(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """Class logits (L, B, Q, ...) and boxes_cxcywh_norm (L, B, Q, 4) of all decoder layers."""

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, ...]:
        """All outputs of the network, unprocessed."""
        return self.layer_outputs(batch_inputs, batch_data_samples)


@MODELS.register_module()
class DETR(SetDetector):
    """Backbone, transformer neck and set-prediction head.

    Args:
        backbone: config; the last feature map it returns is used.
        neck: config of a ``TransformerNeck``.
        bbox_head: config of the plugin's or mmdet's ``DETRHead``.
        train_cfg: handed to the head; its ``assigner`` replaces the head's default.
        test_cfg: handed to the head; its ``max_per_img`` limits the detections returned.
        data_preprocessor: config; mmdet's ``DetDataPreprocessor``.
        training_aids: configs of what helps in training only, by names of yours: ``DenseHeads``, ``QueryGroups``, ``DenoisingQueries``;
            None leaves one out. Their losses carry these names.
        compile_transformer: run neck and head through ``torch.compile``; a dict holds its arguments (``dynamic=True`` unless it says
            otherwise).
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        training_aids: dict[str, dict | None] | None = None,
        compile_transformer: bool | dict = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, bbox_head, train_cfg, test_cfg, data_preprocessor, init_cfg)
        aids = {name: aid for name, aid in (training_aids or {}).items() if aid is not None}
        self.training_aids = ModuleDict({name: build_model_part(copy.deepcopy(aid), f'training_aids.{name}') for name, aid in aids.items()})
        self._check_parts()
        for aid in self.training_aids.values():
            aid.start(self.neck)
        if compile_transformer is not False:
            self.compile_parts(**({} if compile_transformer is True else compile_transformer))

    @property
    def _calls_neck_in_steps(self) -> bool:
        """Whether ``neck.encode`` and ``neck.decode`` are called instead of ``neck``."""
        return bool(self.training_aids)

    def compile_parts(self, **arguments) -> None:
        """Run neck and head through ``torch.compile``, for images of all sizes unless ``dynamic=False`` is among its arguments."""
        # called in two steps, the neck consists of these parts
        neck = [self.neck.encoder, self.neck.decoder] if self._calls_neck_in_steps else [self.neck]
        for part in (*neck, self.bbox_head):
            part.compile(**{'dynamic': True, **arguments})

    def _check_parts(self) -> None:
        needs = [('neck.reference_points', getattr(self.neck, 'reference_logits', None) is not None), ('training_aids', self.training_aids)]
        for what, is_set in needs:
            if is_set and not (isinstance(self.neck, TransformerNeck) and isinstance(self.bbox_head, DETRHead)):
                raise ValueError(
                    f"{what} needs the plugin's TransformerNeck and DETRHead, got {type(self.neck).__name__} and "
                    f'{type(self.bbox_head).__module__}.{type(self.bbox_head).__name__}'
                )

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), the backbone's last feature map."""
        return self.backbone(batch_inputs)[-1]

    def _features(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> tuple[Tensor, Tensor | None]:
        """Feature map and its padding mask. Without data samples nothing counts as padding."""
        feats = self.extract_feat(batch_inputs)
        return feats, self._padding_mask(feats, batch_inputs, batch_data_samples)

    @staticmethod
    def _padding_mask(feats: Tensor, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> Tensor | None:
        if batch_data_samples is None:
            return None
        shapes = [sample.img_shape[:2] for sample in batch_data_samples]
        return feature_padding_mask(shapes, batch_inputs.shape[-2:], feats.shape[-2:], feats.device)

    def forward_hidden_states(self, batch_inputs: Tensor, batch_data_samples: SampleList | None) -> Tensor:
        """(B, 3, H, W) -> hidden states of all decoder layers (L, B, Q, D)."""
        return self.neck(*self._features(batch_inputs, batch_data_samples))[0]

    @property
    def _references(self) -> dict[str, Tensor]:
        logits = getattr(self.neck, 'reference_logits', None)
        return {} if logits is None else dict(reference_logits=logits)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of all decoder layers and of the training aids, by name; mmengine sums them."""
        if not self.training_aids:
            hidden_states = self.forward_hidden_states(batch_inputs, batch_data_samples)
            return self.bbox_head.loss(hidden_states, batch_data_samples=batch_data_samples, **self._references)
        encoded = self.neck.encode(*self._features(batch_inputs, batch_data_samples))
        targets = collate_targets(
            [sample.gt_instances for sample in batch_data_samples],
            [sample.metainfo for sample in batch_data_samples],
            self.bbox_head.num_classes,
        )
        hidden_states, losses_of_aids = self._decode(encoded, batch_data_samples, targets, batch_inputs.shape[-2:])
        return self.bbox_head.loss(hidden_states, batch_data_samples=batch_data_samples, **self._references) | losses_of_aids

    def _decode(
        self, encoded: Encoded, batch_data_samples: SampleList, targets: Targets, batch_shape: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """In training: hidden states (L, B, Q, D) of the detector's own queries, and the losses of the training aids."""
        step = TrainingStep(encoded, batch_data_samples, targets, self.bbox_head, tuple(batch_shape))
        extra = {name: aid.queries(step) for name, aid in self.training_aids.items()}
        parts = [self.neck.queries(encoded.memory.dtype), *(queries for queries in extra.values() if queries is not None)]
        own, *others = self.neck.decode(encoded, parts).split([len(part) for part in parts], dim=2)
        losses = {}
        for name, aid in self.training_aids.items():
            hidden_states = None if extra[name] is None else others.pop(0)
            losses |= {f'{name}.{key}': value for key, value in aid.loss(step, hidden_states, extra[name]).items()}
        return own, losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The data samples with ``pred_instances`` (bboxes in xyxy, scores, labels), best first; in original pixels with ``rescale``."""
        hidden_states = self.forward_hidden_states(batch_inputs, batch_data_samples)
        results = self.bbox_head.predict(hidden_states, batch_data_samples=batch_data_samples, rescale=rescale, **self._references)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def detect(self, batch_inputs: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every query's best class and its box, by tensors alone, as exported networks need it.

        Args:
            batch_inputs: (B, 3, H, W).
            sizes: (B, 2), heights and widths without padding.

        Returns:
            Corners (B, Q, 4) as fractions of the images' sides, scores (B, Q) and labels (B, Q), in the order of the queries.
        """
        feats = self.extract_feat(batch_inputs)
        padding_mask = padding_mask_of_sizes(sizes, batch_inputs.shape[-2:], feats.shape[-2:])
        hidden_states = self.neck(feats, padding_mask)[0]
        logits, boxes = self.bbox_head(hidden_states[-1:], **self._references)
        return self.bbox_head.best_classes(logits[-1], boxes[-1])

    def layer_outputs(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Tensor, Tensor]:
        """What ``DETRHead.forward`` returns, for all decoder layers: class logits (L, B, Q, K + 1) and boxes_cxcywh_norm (L, B, Q, 4)."""
        return self.bbox_head(self.forward_hidden_states(batch_inputs, batch_data_samples), **self._references)


def feature_padding_mask(
    img_shapes: Sequence[tuple[int, int]], batch_shape: tuple[int, int], feat_shape: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Which cells of the feature map are padding.

    Equals nearest-neighbour resizing of the pixel mask, as the reference does it, without making that mask.

    Args:
        img_shapes: (height, width) of each image without padding.
        batch_shape: (H, W) of the padded batch.
        feat_shape: (h, w) of the feature map.

    Returns:
        (B, h, w), True = padding; None when no image is padded.

    Raises:
        ValueError: when an image is larger than the batch.
    """
    if all(tuple(shape) == tuple(batch_shape) for shape in img_shapes):
        return None
    if any(h > batch_shape[0] or w > batch_shape[1] for h, w in img_shapes):
        raise ValueError(
            f'img_shape of a data sample exceeds the batch: {list(map(tuple, img_shapes))} in {tuple(batch_shape)}; '
            'img_shape must be the size of the image before padding'
        )
    sizes = to_device(torch.tensor([tuple(shape) for shape in img_shapes], dtype=torch.float32), device)
    return padding_mask_of_sizes(sizes, batch_shape, feat_shape)


def padding_mask_of_sizes(sizes: Tensor, batch_shape: tuple[int, int], feat_shape: tuple[int, int]) -> Tensor:
    """What ``feature_padding_mask`` computes, from heights and widths (B, 2) as a tensor; shapes may be symbols of an export."""
    beyond = []
    for axis in (0, 1):
        # The pixel that a cell samples, in float32 as torch's nearest interpolation computes it.
        batch, feat = (torch.full((), shape[axis], dtype=torch.float32, device=sizes.device) for shape in (batch_shape, feat_shape))
        sampled = torch.floor(torch.arange(feat_shape[axis], dtype=torch.float32, device=sizes.device) * (batch / feat))
        beyond.append(sampled[None] >= sizes[:, axis, None])  # (B, h) and (B, w)
    return beyond[0][:, :, None] | beyond[1][:, None, :]
