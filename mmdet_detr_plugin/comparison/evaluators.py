"""What a config is evaluated by: COCO's box metrics, and beside them panoptic quality where there are segments."""

from mmengine.config import Config

from ..config_files import kind

PANOPTIC_QUALITY = tuple(f'{figure}{part}' for figure in ('PQ', 'SQ', 'RQ') for part in ('', '_th', '_st'))


def box_evaluator(cfg: Config, split: str = 'test') -> dict:
    """The ``CocoMetric`` among the evaluators.

    Raises:
        ValueError: when there is not exactly one with metric 'bbox'.
    """
    found = [item for item in _evaluators(cfg, split) if kind(item) == 'CocoMetric' and 'bbox' in item.get('metric', 'bbox')]
    if len(found) != 1:
        raise ValueError(
            f"comparisons are made with COCO's box metrics, so {split}_evaluator must be one CocoMetric with metric 'bbox', got "
            f'{cfg.get(f"{split}_evaluator")}'
        )
    return found[0]


def panoptic_evaluator(cfg: Config, split: str = 'test') -> dict | None:
    """The plugin's ``CocoPanopticMetric`` among the evaluators, if there is one."""
    return next((item for item in _evaluators(cfg, split) if kind(item) == 'CocoPanopticMetric'), None)


def check_evaluators(cfg: Config) -> None:
    """Refuse what a comparison could not report.

    Raises:
        ValueError: unless the evaluators are one ``CocoMetric`` for boxes and at most one ``CocoPanopticMetric``.
    """
    box_evaluator(cfg)
    others = [kind(item) for item in _evaluators(cfg, 'test') if kind(item) != 'CocoMetric']
    if others not in ([], ['CocoPanopticMetric']):
        raise ValueError(
            "comparisons are made with COCO's box metrics and panoptic quality, so test_evaluator must be one CocoMetric, and "
            f'CocoPanopticMetric beside it for models with segments; got {cfg.test_evaluator}'
        )


def _evaluators(cfg: Config, split: str) -> list[dict]:
    found = cfg.get(f'{split}_evaluator') or []
    return [item for item in (found if isinstance(found, list | tuple) else [found]) if isinstance(item, dict)]
