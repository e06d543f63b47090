"""What detectors with a mask for each query share: classes of things and stuff, losses of matched masks, and results."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import SampleList
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ..hungarian_assigner import Pairs
from ..parts import build_model_part
from .post_processing import at_batch_size, instance_masks, panoptic_map

MasksOf = Callable[[Tensor, Tensor], Tensor]  # images (P,) and their queries (P,), ordered by image -> mask logits (P, h, w)


@dataclass
class Findings:
    """What was found in one image, before its masks are made.

    Attributes:
        instances: detections, best first, of things and stuff.
        queries: (N,), the query of each detection.
        segment_queries: (P,), those that are sure of an object.
        segment_labels: (P,), what they are sure of.
    """

    instances: InstanceData
    queries: Tensor
    segment_queries: Tensor
    segment_labels: Tensor


class WithMasks:
    """Mixin of ``PanopticDETR`` and ``PanopticLocalDETR``; goes before the detector among a class's bases."""

    default_test_cfg = dict(panoptic_on=True, instance_on=True, score_thr=0.85)

    def _split_test_cfg(self, test_cfg: dict | None) -> tuple[dict, dict | None]:
        """The settings of the masks' results, and the detector's own."""
        given, own = test_cfg or {}, self.default_test_cfg
        rest = {key: value for key, value in given.items() if key not in own}
        return {key: given.get(key, default) for key, default in own.items()}, rest or None

    def _add_masks(self, mask_head: dict | None, num_things_classes: int, num_stuff_classes: int, test_cfg: dict) -> None:
        """To call when the detector is built."""
        self.panoptic_on, self.instance_on, self.score_thr = (test_cfg[key] for key in ('panoptic_on', 'instance_on', 'score_thr'))
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.mask_head = build_model_part(copy.deepcopy(mask_head), 'mask_head') if mask_head else None
        if not mask_head:
            self.panoptic_on = self.instance_on = False

    def _check_masks(self) -> None:
        things, stuff = self.num_things_classes, self.num_stuff_classes
        if things + stuff != self.bbox_head.num_classes or min(things, stuff) < 0:
            raise ValueError(
                f'bbox_head.num_classes must be num_things_classes + num_stuff_classes = {things} + {stuff}, got '
                f'{self.bbox_head.num_classes}'
            )
        if self.mask_head is None:
            return
        if self.mask_head.embed_dims != self.neck.embed_dims:
            raise ValueError(
                f'mask_head.embed_dims is {self.mask_head.embed_dims}, neck.embed_dims {self.neck.embed_dims}; make them equal'
            )
        outputs = tuple(getattr(self.backbone, 'out_indices', (0, 1, 2, 3)))
        if outputs != (0, 1, 2, 3):
            raise ValueError(f'the mask head needs all four stages of the backbone: set backbone.out_indices=(0, 1, 2, 3), got {outputs}')

    def _mask_losses(
        self, samples: SampleList, owners: tuple[Tensor, Tensor, Tensor], masks_of: MasksOf, size: tuple[int, int], num_objects: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the masks that belong to an object.

        Args:
            samples: with the masks of things and stuff; see ``with_stuff_objects``.
            owners: image, object and query (P,) of each mask, ordered by image.
            size: (H, W) of the padded batch.
            num_objects: what the sums are divided by.
        """
        image, target, query = owners
        masks = [samples[i].gt_instances.masks[t] for i, t in zip(image.tolist(), target.tolist(), strict=True)]
        weight = 1.0
        if not masks:  # as many parameters take part as always, which several processes need
            image, query = image.new_zeros(1), query.new_zeros(1)
            masks, weight = [torch.zeros(size, dtype=torch.bool, device=image.device)], 0.0
        losses = self.mask_head.loss(masks_of(image, query), masks, size, num_objects)
        return {name: weight * value for name, value in losses.items()}

    def _add_results(
        self,
        samples: SampleList,
        findings: Sequence[Findings],
        num_queries: int,
        masks_of: MasksOf,
        batch_shape: tuple[int, int],
        rescale: bool,
    ) -> SampleList:
        """The data samples with ``pred_instances`` of things, and what ``instance_on`` and ``panoptic_on`` ask for.

        Only the masks that go into a result are made.
        """
        for found in findings:
            is_thing = found.instances.labels < self.num_things_classes
            found.instances, found.queries = found.instances[is_thing], found.queries[is_thing]
        is_wanted = torch.zeros(len(samples), num_queries, dtype=torch.bool, device=findings[0].queries.device)
        for wanted, found in zip(is_wanted, findings, strict=True):
            for is_on, queries in ((self.panoptic_on, found.segment_queries), (self.instance_on, found.queries)):
                if is_on:
                    wanted[queries] = True
        masks = _wanted_masks(masks_of, is_wanted)
        number = is_wanted.cumsum(1) - 1  # of each wanted query among its image's masks
        for sample, found, of_image, index in zip(samples, findings, masks, number, strict=True):
            img_shape = sample.img_shape[:2]
            out_shape = sample.ori_shape[:2] if rescale else img_shape
            sample.pred_instances = found.instances
            if self.instance_on:
                sample.pred_instances.masks = instance_masks(of_image[index[found.queries]], batch_shape, img_shape, out_shape)
            if self.panoptic_on:
                of_segments = at_batch_size(of_image[index[found.segment_queries]], batch_shape, img_shape)
                seg = panoptic_map(of_segments, found.segment_labels, self.num_things_classes, self.bbox_head.num_classes, out_shape)
                sample.pred_panoptic_seg = PixelData(sem_seg=seg[None])
        return samples


def last_matches(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Image, object and query (P,) of the last layer's pairs, ordered by image."""
    is_last = pairs.layer == pairs.layer.amax() if len(pairs.layer) else pairs.layer.bool()
    return pairs.image[is_last], pairs.target[is_last], pairs.query[is_last]


def _wanted_masks(masks_of: MasksOf, is_wanted: Tensor) -> list[Tensor]:
    """Of each image, mask logits (P, h, w) of the wanted queries (B, Q), in their order."""
    image, query = is_wanted.nonzero(as_tuple=True)
    if not len(image):  # as without a mask head
        return [torch.zeros(0, 1, 1, device=is_wanted.device)] * len(is_wanted)
    return list(masks_of(image, query).split(is_wanted.sum(1).tolist()))


def gather_queries(image: Tensor, query: Tensor, *of_queries: Tensor) -> tuple[Tensor, ...]:
    """Values (B, Q, C) of P queries, ordered by image, as (B, T, C), and which of these are values (B, T): T are an image's most."""
    num_images = len(of_queries[0])
    counts = torch.bincount(image, minlength=num_images)
    slot = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    chosen = torch.zeros(num_images, int(counts.max()), dtype=torch.bool, device=image.device)
    chosen[image, slot] = True
    gathered = [x.new_zeros(*chosen.shape, x.shape[-1]).index_put((image, slot), x[image, query]) for x in of_queries]
    return *gathered, chosen
