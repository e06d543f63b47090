"""What helps a DETR to learn and is not there afterwards: no key of a stripped checkpoint, nothing in ``predict``."""

from .denoising_queries import DenoisingQueries
from .dense_heads import DenseHeads
from .jittered_boxes import JitteredBoxes
from .query_groups import QueryGroups

__all__ = ['DenoisingQueries', 'DenseHeads', 'JitteredBoxes', 'QueryGroups']
