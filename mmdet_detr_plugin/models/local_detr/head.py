"""Dense head, selected queries, decoder, set-prediction loss and prediction of ``LocalDETR``.

Letters: L decoder layers, B images, Q queries, D channels, K classes, T objects, N cells of all levels of the memory.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ...devices import at_least_float32, to_device
from ...registry import MODELS
from ..detr_head import pixels
from ..fused_linear import apply_linear
from ..hungarian_assigner import HungarianAssigner, Pairs
from ..parts import build_task_util, check_counts, checked_weights
from ..position_encoding import SinePositionEncoding
from ..queries import group_mask
from ..set_criterion import average_over_ranks, box_losses, by_layer
from ..targets import Targets, collate_targets
from ..training_aids.jittered_boxes import JitteredQueries
from .box_attention import level_of_boxes, sample_in_boxes
from .decoder import LocalDecoderLayer
from .dense_head import DenseHead
from .masked_convs import flat_padding
from .outputs import Outputs, Step, View
from .query_selection import select_locations
from .relation_attention import pair_features
from .varifocal_loss import varifocal_loss

# The class weighs more than in the paper: of several queries on one object the one that scores highest should get it, and not by chance
# one whose box is a little better, or no query could learn that it is a duplicate.
ASSIGNER = dict(
    type='mmdet_detr_plugin.HungarianAssigner',
    match_costs=[
        dict(type='mmdet.ClassificationCost', weight=4.0),
        dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
    ],
)

NOTHING = -20.0  # the logits of queries from padding
NOWHERE = (10.0, 10.0, 0.0, 0.0)  # their boxes, cxcywh_norm: farther from every object than any box in the image

# Boxes are seen on a level this much finer than their points: where an object ends shows in fine cells, and what it is in all of them.
CELLS_PER_POINT = 3


@MODELS.register_module()
class LocalDETRHead(BaseModule):
    """Queries are the best locations of a dense head; every decoder layer looks into their boxes and refines them.

    Class scores are sigmoids that predict the box's IoU with the object (varifocal loss), so that they also rank boxes; matching is one to
    one, with the paper's costs but for the weight of the class.

    Args:
        num_classes: K.
        embed_dims: D, channels of the memory.
        num_dense_levels: the dense head looks at this many of the memory's levels, the coarsest ones. Boxes are sampled from all.
        num_queries: Q; also the most objects that can be found in one image.
        num_points: P, along each side of a box.
        view_scale: a query sees this many times the sides of its box: where an object ends is seen from outside too.
        value_dims: channels that are sampled from the memory.
        num_dense_convs: convolutions of the dense head before each of its outputs.
        norm_cfg: of these convolutions; batch norm by default.
        delta_scale: what the decoder's changes of boxes are multiplied by. Below 1 an optimiser's step moves boxes less, as the standard
            deviations of targets do in R-CNNs.
        jitter: training only: config of ``JitteredBoxes``.
        loss_weights: of ``loss_cls``, ``loss_bbox`` (L1) and ``loss_iou`` (GIoU).
        train_cfg: ``assigner``, default ``ASSIGNER``; any weights, but no other costs.
        test_cfg: ``max_per_img``; default: as many as queries.

    Raises:
        ValueError: for another assigner or other costs, counts below 1, unknown losses, and, in ``forward``, fewer levels than
            ``num_dense_levels``.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int = 256,
        num_dense_levels: int = 3,
        num_queries: int = 100,
        num_decoder_layers: int = 3,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.0,
        num_points: int = 7,
        view_scale: float = 1.5,
        value_dims: int = 64,
        num_dense_convs: int = 1,
        norm_cfg: dict | None = None,
        delta_scale: float = 1.0,
        jitter: dict | None = None,
        loss_weights: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        train_cfg = train_cfg or {}
        check_counts(num_classes=num_classes, embed_dims=embed_dims, num_queries=num_queries, num_decoder_layers=num_decoder_layers)
        check_counts(num_dense_levels=num_dense_levels, num_heads=num_heads, feedforward_channels=feedforward_channels)
        check_counts(num_points=num_points, value_dims=value_dims)
        check_counts(least=0, num_dense_convs=num_dense_convs)
        if view_scale <= 0:
            raise ValueError(f'view_scale is what a box is enlarged by before it is looked into, and must be above 0, got {view_scale!r}')
        self.num_classes, self.embed_dims, self.num_queries = num_classes, embed_dims, num_queries
        self.num_dense_levels, self.view_scale = num_dense_levels, view_scale
        max_per_img = (test_cfg or {}).get('max_per_img')
        self.max_per_img = num_queries if max_per_img is None else max_per_img
        check_counts(max_per_img=self.max_per_img)
        self.loss_weights = checked_weights(loss_weights, loss_cls=1.0, loss_bbox=5.0, loss_iou=2.0)
        self.assigner = build_task_util(train_cfg.get('assigner') or ASSIGNER, 'train_cfg.assigner')
        if not isinstance(self.assigner, HungarianAssigner) or not self.assigner.has_paper_costs:
            raise ValueError(
                "LocalDETRHead needs mmdet_detr_plugin.HungarianAssigner with costs of the paper's form (ClassificationCost, BBoxL1Cost of "
                f"box_format 'xywh', IoUCost of iou_mode 'giou'; any weights), got {train_cfg['assigner']}"
            )
        self.jitter = MODELS.build(jitter) if jitter else None
        self.dense_head = DenseHead(num_classes, embed_dims, num_dense_levels, num_dense_convs, norm_cfg)
        self.value_proj = nn.Linear(embed_dims, value_dims)
        self.content_proj = nn.Linear(embed_dims, embed_dims)
        self.content_norm = nn.LayerNorm(embed_dims)
        self.encode_position = SinePositionEncoding(embed_dims // 2)
        self.box_pos = nn.Sequential(nn.Linear(2 * embed_dims, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims))
        self.layers = nn.ModuleList(
            LocalDecoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels,
                dropout,
                value_dims=value_dims,
                num_points=num_points,
                num_classes=num_classes,
                delta_scale=delta_scale,
            )
            for _ in range(num_decoder_layers)
        )

    def forward(self, memory: Sequence[Tensor], view: View, extra: JitteredQueries | None = None) -> Outputs:
        """Run dense head, selection and decoder.

        Args:
            memory: (B, D, h, w) of each level.
            view: where the images lie in the batch.
            extra: boxes that go through the decoder beside the selected ones, in training.
        """
        if len(memory) < self.num_dense_levels:
            raise ValueError(
                f'bbox_head.num_dense_levels is {self.num_dense_levels}, the neck gives {len(memory)} levels; set it to at most that, or '
                'more of model.backbone.out_indices and model.neck.in_channels'
            )
        masks = view.padding_masks[-self.num_dense_levels :]
        dense = self.dense_head(memory[-self.num_dense_levels :], masks)
        scores = [logits.detach().float().sigmoid().amax(1, keepdim=True) for logits in dense[0]]
        selected, is_used = select_locations(scores, masks, self.num_queries)
        boxes = dense[1].detach().gather(1, selected[..., None].expand(-1, -1, 4))  # (B, N, 4) -> (B, Q, 4)
        boxes = xyxy_to_cxcywh(boxes) / view.scale
        best = torch.cat([score.flatten(1) for score in scores], dim=1).gather(1, selected)  # (B, Q)
        attend_mask = self._attend_mask(is_used, extra, boxes.shape[1])
        if extra is not None:
            boxes = torch.cat((boxes, extra.boxes_cxcywh_norm), dim=1)
            best = torch.cat((best, best.new_zeros(extra.boxes_cxcywh_norm.shape[:2])), dim=1)
        logits, boxes, hidden_states = self._decode(memory, boxes, best, view, attend_mask)
        if is_used is not None:  # queries from padding, in images of fewer cells than queries, are nothing, and nobody sees them
            is_nothing = F.pad(~is_used, (0, logits.shape[2] - selected.shape[1]))[None, ..., None]
            logits = logits.masked_fill(is_nothing, NOTHING)
            boxes = torch.where(is_nothing, to_device(torch.tensor(NOWHERE, dtype=boxes.dtype), boxes.device), boxes)
        return Outputs(logits, boxes, hidden_states, dense, selected.shape[1], is_used)

    def _attend_mask(self, is_used: Tensor | None, extra: JitteredQueries | None, num_selected: int) -> Tensor | None:
        """(B, 1, Q, Q), True = may be attended to, of the selected queries that are used and the extra ones; None = everything may."""
        if is_used is None:
            return None if extra is None else extra.attend_mask(num_selected)
        if extra is not None:
            return extra.attend_mask(num_selected, is_used)
        return group_mask(is_used.new_zeros(num_selected, dtype=torch.long), is_used)

    def _decode(
        self, memory: Sequence[Tensor], boxes: Tensor, scores: Tensor, view: View, attend_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, 4) with scores (B, Q) -> class logits (L, B, Q, K), boxes_cxcywh_norm (L, B, Q, 4), hidden states (B, Q, D)."""
        shapes = [tuple(level.shape[-2:]) for level in memory]
        tokens = torch.cat([level.flatten(2) for level in memory], dim=2).transpose(1, 2)  # (B, N, D)
        values = apply_linear(self.value_proj, tokens)
        if (padding := flat_padding(view.padding_masks)) is not None:  # as beyond the memory
            values = values.masked_fill(padding[..., None], 0)
        x, all_logits, all_boxes = None, [], []
        for layer in self.layers:
            boxes = boxes.detach()
            regions = boxes * view.scale  # as fractions of the memory's sides
            regions = torch.cat((regions[..., :2], self.view_scale * regions[..., 2:]), dim=-1)
            level = level_of_boxes(regions, shapes, CELLS_PER_POINT * layer.num_points)
            if x is None:
                seen = sample_in_boxes(tokens, shapes, regions, level, num_points=1).flatten(2)
                x = self.content_norm(apply_linear(self.content_proj, seen))
            features = pair_features(boxes, scores, attend_mask)
            x = layer(x, self._position(boxes, x.dtype), values, shapes, regions, level, features, attend_mask)
            logits, boxes = layer.predict(x, boxes, features)
            scores = at_least_float32(logits.detach()).amax(-1)
            all_logits.append(logits)
            all_boxes.append(boxes)
        return torch.stack(all_logits), torch.stack(all_boxes), x

    def _position(self, boxes_cxcywh_norm: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, Q, 4) -> (B, Q, D)."""
        encoded = self.encode_position.encode_axis(boxes_cxcywh_norm * self.encode_position.scale)  # (B, Q, 4, D/2)
        return self.box_pos(encoded.flatten(2).to(dtype))

    def loss(self, memory: Sequence[Tensor], view: View, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Losses by name: the dense head's behind ``dense.``, those of queries from jittered objects behind ``jitter.``."""
        return self.matched_losses(memory, view, batch_data_samples).losses

    def matched_losses(self, memory: Sequence[Tensor], view: View, batch_data_samples: Sequence) -> Step:
        """``loss``, with what it was computed from."""
        gt_instances = [sample.gt_instances for sample in batch_data_samples]
        img_metas = [sample.metainfo for sample in batch_data_samples]
        targets = collate_targets(gt_instances, img_metas, self.num_classes)
        extra = self.jitter(targets, img_metas) if self.jitter is not None else None
        outputs = self(memory, view, extra)
        masks = view.padding_masks[-self.num_dense_levels :]
        dense = self.dense_head.loss(*outputs.dense, targets, view.scale, masks)
        losses = {f'dense.{key}': value for key, value in dense.items()}
        num_objects = average_over_ranks(outputs.boxes.new_full((), targets.num_objects))
        logits, boxes = outputs.logits[:, :, : outputs.num_selected], outputs.boxes[:, :, : outputs.num_selected]
        pairs = self.match(logits, boxes, targets, img_metas)
        # objects that padding is left for, in images of more objects than cells, teach nothing
        losses |= self._layer_losses(logits, boxes, pairs, targets, num_objects, '', outputs.is_used)
        if extra is not None:
            rest = outputs.logits[:, :, outputs.num_selected :], outputs.boxes[:, :, outputs.num_selected :]
            losses |= self._layer_losses(*rest, extra.pairs(len(rest[0])), targets, num_objects, 'jitter.', extra.weights)
        return Step(losses, outputs, pairs, num_objects)

    def match(self, logits: Tensor, boxes: Tensor, targets: Targets, img_metas: Sequence[dict]) -> Pairs:
        """One query for each object in each layer, from logits (L, B, Q, K) and boxes_cxcywh_norm (L, B, Q, 4)."""
        log_probability = F.logsigmoid(at_least_float32(logits.detach()))
        return self.assigner.assign_batch(logits, boxes, targets, img_metas, log_probability=log_probability)

    def _layer_losses(
        self, logits: Tensor, boxes: Tensor, pairs: Pairs, targets: Targets, norm: Tensor, prefix: str, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        l1, giou = box_losses(boxes, pairs, targets, weights)
        losses = dict(loss_cls=varifocal_loss(logits, boxes, pairs, targets, weights), loss_bbox=l1, loss_iou=giou)
        return by_layer({name: self.loss_weights[name] * values / norm for name, values in losses.items()}, prefix)

    def predict(self, memory: Sequence[Tensor], view: View, batch_data_samples: Sequence, rescale: bool = True) -> list[InstanceData]:
        """The ``max_per_img`` best pairs of a query and a class in each image; no score threshold, no NMS."""
        outputs = self(memory, view)
        return self.predict_by_feat(outputs.logits, outputs.boxes, [sample.metainfo for sample in batch_data_samples], rescale)

    def predict_by_feat(self, logits: Tensor, boxes: Tensor, batch_img_metas: Sequence[dict], rescale: bool = True) -> list[InstanceData]:
        """Detections from the last layer.

        Args:
            logits: (L, B, Q, K).
            boxes: (L, B, Q, 4), cxcywh_norm.
            batch_img_metas: ``img_shape`` of each image; ``scale_factor`` (w, h) with ``rescale``.
            rescale: return boxes in the original image's pixels.

        Returns:
            For each image ``bboxes`` (n, 4) in xyxy pixels, ``scores`` (n,) descending and ``labels`` (n,).
        """
        return self.ranked(logits, boxes, batch_img_metas, rescale)[0]

    def ranked(
        self, logits: Tensor, boxes: Tensor, batch_img_metas: Sequence[dict], rescale: bool = True
    ) -> tuple[list[InstanceData], Tensor]:
        """``predict_by_feat``, and the query (B, n) of each detection."""
        corners, scores, labels, queries = self.best_pairs(logits[-1], boxes[-1])
        corners = corners * to_device(pixels(batch_img_metas, rescale).to(corners.dtype), corners.device)
        results = [
            InstanceData(bboxes=image_boxes, scores=image_scores, labels=image_labels)
            for image_boxes, image_scores, image_labels in zip(corners, scores, labels, strict=True)
        ]
        return results, queries

    def best_pairs(self, logits: Tensor, boxes_cxcywh_norm: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, Q, K) and (B, Q, 4) -> corners (B, n, 4) in [0, 1], scores (B, n) descending, labels (B, n) and queries (B, n)."""
        scores = at_least_float32(logits).sigmoid().flatten(1)  # (B, Q * K)
        scores, order = scores.topk(min(self.max_per_img, scores.shape[1]))
        query, labels = order // self.num_classes, order % self.num_classes
        corners = cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm)).clamp(0, 1)
        return corners.gather(1, query[..., None].expand(-1, -1, 4)), scores, labels, query
