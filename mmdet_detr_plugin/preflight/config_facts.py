"""What a resolved config says about its model, by names that mmdet's and the plugin's classes share. Nothing is built."""

from collections.abc import Iterator

from ..config_files import kind

DEFAULT_QUERIES = 100  # of mmdet's DETRs and of the plugin's, where the config does not say
QUERY_PLACES = ('', 'bbox_head', 'neck', 'panoptic_head')
OTHER_CLASSES = ('rpn_head', 'backbone', 'semantic_head')  # their num_classes are not the data's


def dict_at(node: object, *keys: str) -> dict:
    """The dict below some keys; empty where there is none."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def whole(node: dict, key: str, default: int | None = None) -> int | None:
    """A whole number of a config; the default where there is none, or something else."""
    value = node.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def walk(node: object, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict below a node, with its dotted place."""
    if isinstance(node, dict):
        yield path, node
        items = node.items()
    else:
        items = enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield from walk(value, f'{path}.{key}' if path else str(key))


def class_counts(model: dict) -> dict[str, int]:
    """Every ``num_classes`` that must equal the data's number of classes, by its dotted place."""
    return {
        f'model.{path}.num_classes' if path else 'model.num_classes': node['num_classes']
        for path, node in walk(model)
        if isinstance(node.get('num_classes'), int) and not set(path.split('.')) & set(OTHER_CLASSES)
    }


def num_queries(model: dict) -> tuple[str, int] | None:
    """Where the config says how many queries there are, and how many; None for a model without queries."""
    for place in QUERY_PLACES:
        node = dict_at(model, place) if place else model
        if isinstance(node.get('num_queries'), int):
            return f'model.{place}.num_queries' if place else 'model.num_queries', node['num_queries']
    if is_detr(model):
        return 'num_queries (not in the config)', DEFAULT_QUERIES
    return None


def is_detr(model: dict) -> bool:
    """Whether objects are found by queries and one-to-one matching."""
    name = kind(model).upper()
    return 'DETR' in name or 'DINO' in name or any('num_queries' in dict_at(model, place) for place in QUERY_PLACES[1:])


def is_plain_detr(model: dict) -> bool:
    """The paper's model, whose schedules are long: no training aids, no queries selected from the image."""
    return kind(model) == 'DETR' and not model.get('training_aids')


def backbone_weights(cfg: dict) -> str | None:
    """The checkpoint that the backbone starts from; None for a random start."""
    model = dict_at(cfg, 'model')
    for init_cfg in (dict_at(model, 'backbone').get('init_cfg'), model.get('init_cfg')):
        for node in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
            if isinstance(node, dict) and node.get('checkpoint'):
                return str(node['checkpoint'])
    pretrained = dict_at(model, 'backbone').get('pretrained') or model.get('pretrained')
    return str(pretrained) if pretrained else None
