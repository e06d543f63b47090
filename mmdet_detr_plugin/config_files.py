"""Finding the shipped configs from anywhere."""

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path


def configs_folder() -> Path:
    """The folder of the shipped configs: inside the package when installed, beside it in a checkout that is not."""
    package = Path(__file__).resolve().parent
    inside = package / '.mim' / 'configs'
    return (inside if inside.is_dir() else package.parent / 'configs').resolve()


def config_names() -> list[str]:
    """Shipped configs such as ``detr/detr_r50_8xb2-150e_coco.py``, without the bases."""
    root = configs_folder()
    return sorted(path.relative_to(root).as_posix() for path in root.glob('*/*.py') if path.parent.name != '_base_')


def find_config(path_or_name: Path) -> Path:
    """A config file, or else the shipped config of that name; see ``config_path``."""
    return path_or_name if path_or_name.is_file() else Path(config_path(str(path_or_name)))


def read_config(path_or_name: Path):
    """A resolved ``mmengine.config.Config`` from a file or the name of a shipped config.

    Raises:
        FileNotFoundError: when it, or a config that it inherits, does not exist.
        ValueError: when it cannot be read, or has no model.
    """
    from mmengine.config import Config  # slow to import, and finding configs does not need it

    path = find_config(path_or_name)
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path} inherits a config that does not exist ({error}); correct its _base_') from error
    except Exception as error:  # a config is a program: it can fail in any way
        raise ValueError(
            f'{path} cannot be read as a config ({type(error).__name__}: {" ".join(str(error).split())}); correct it'
        ) from error
    if not isinstance(cfg.get('model'), dict) or 'type' not in cfg.model:
        raise ValueError(f'{path} is no detection config: it must have model=dict(type=...), and has {list(cfg)[:8]}')
    parts = [part.get('type') for part in cfg.model.values() if isinstance(part, dict)]
    has_plugin_parts = any(str(part).startswith('mmdet_detr_plugin.') for part in parts)
    if cfg.model.type in ('DETR', 'LocalDETR', 'PanopticDETR', 'PanopticLocalDETR') and has_plugin_parts:
        raise ValueError(
            f"{path}: model.type {cfg.model.type!r} has no scope, and would not be the plugin's class, as its parts are; write "
            f"'mmdet_detr_plugin.{cfg.model.type}'"
        )
    return cfg


def config_path(name: str) -> str:
    """Absolute path of a shipped config.

    mmengine's ``_base_ = 'package::config.py'`` knows its own packages only. In a config of yours, this does the same::

        _base_ = __import__('mmdet_detr_plugin').config_path('detr/detr_r50_8xb2-150e_coco.py')

    Args:
        name: path below ``configs``, or, but for the bases, the file name alone; ``.py`` may be left out.

    Raises:
        FileNotFoundError: with the nearest names, when there is no such config.
    """
    name = name.removeprefix('configs/').removesuffix('.py') + '.py'
    direct = configs_folder() / name
    if '..' not in direct.parts and direct.is_file():
        return str(direct)
    matches = [config for config in config_names() if Path(config).name == name]
    if matches:  # file names are unique
        return str(configs_folder() / matches[0])
    near = get_close_matches(Path(name).name, [Path(config).name for config in config_names()], n=3, cutoff=0.3)
    hint = f'near it: {", ".join(near)}; ' if near else ''
    raise FileNotFoundError(f'mmdet_detr_plugin has no config {name!r}; {hint}python -m mmdet_detr_plugin lists all')


def flat(content: dict, prefix: str = '') -> dict[str, object]:
    """Nested dicts as dotted names, as ``--cfg-options`` takes them; lists and empty dicts stay whole."""
    found = {}
    for key, value in content.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) and value else {f'{prefix}{key}': value}
    return found


def kind(node: object) -> str:
    """The class that a config node names, without its scope: 'DETR' for ``dict(type='mmdet_detr_plugin.DETR')``."""
    name = node.get('type') if isinstance(node, dict) else node
    return (name if isinstance(name, str) else getattr(name, '__name__', '')).split('.')[-1]


def mmdet_train_script() -> Path:
    """mmdet's own ``tools/train.py``, as its wheel installs it."""
    return Path(find_spec('mmdet').origin).parent / '.mim' / 'tools' / 'train.py'


def dataset_chains(dataloader: dict) -> list[list[dict]]:
    """Of each data set that reads images, the configs from the outermost wrapper to its own.

    There are several chains where a ``ConcatDataset`` joins data sets, and one of an empty config where there is no data set.
    """

    def chains(dataset: object) -> list[list[dict]]:
        if not isinstance(dataset, dict):
            return []
        joined = dataset.get('datasets')
        if isinstance(joined, (list, tuple)):
            return [[dataset, *chain] for part in joined for chain in chains(part)]
        return [[dataset, *chain] for chain in chains(dataset.get('dataset'))] or [[dataset]]

    return chains(dataloader.get('dataset')) or [[{}]]


def innermost_dataset(dataloader: dict) -> dict:
    """The data set's config inside whatever wraps it, the first one's where several are joined; empty where there is none."""
    return dataset_chains(dataloader)[0][-1]


def annotation_files(dataloader: dict) -> list[Path]:
    """The COCO JSON of each data set of a loader; none for data sets that have no such file."""
    datasets = [chain[-1] for chain in dataset_chains(dataloader)]
    return [Path(dataset.get('data_root') or '') / dataset['ann_file'] for dataset in datasets if dataset.get('ann_file')]


def annotation_file(dataloader: dict) -> Path:
    """The COCO JSON of a loader's one data set.

    Raises:
        ValueError: when there is another number of them.
    """
    files = annotation_files(dataloader)
    if len(files) != 1:
        named = ', '.join(map(str, files)) or 'none'
        raise ValueError(f'expected a loader that reads one annotation file, got {len(files)} ({named})')
    return files[0]


def image_folder(dataloader: dict) -> Path:
    """What the names in that file are relative to."""
    dataset = innermost_dataset(dataloader)
    return Path(dataset.get('data_root') or '') / (dataset.get('data_prefix') or {}).get('img', '')
