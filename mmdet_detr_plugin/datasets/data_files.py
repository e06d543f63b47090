"""What a data set may name: files that cannot run code, and images that are files."""

from collections.abc import Iterator

RUNS_CODE = ('.pkl', '.pickle', '.yaml', '.yml')  # mmengine reads YAML with tags, which can call any function


def refuse_code(name: str, what: str) -> None:
    """Refuse a data file that mmengine would read by running what it holds.

    Raises:
        ValueError: for a pickle or a YAML file, by its suffix as mmengine goes by it.
    """
    if str(name).lower().endswith(RUNS_CODE):
        raise ValueError(
            f'{what} {name!r} is a pickle or YAML file, which can run code when mmengine reads it, and was not opened; expected JSON. '
            'Write its content to a .json file where it was made'
        )


def data_files_of(dataset: dict) -> Iterator[tuple[str, str]]:
    """Option and value of every annotation and proposal file that the config of a data set names, in the data sets it wraps too."""
    for key, value in dataset.items():
        if key in ('ann_file', 'proposal_file') and isinstance(value, str):
            yield key, value
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, dict) and key in ('dataset', 'datasets'):
                yield from data_files_of(inner)


def check_file_name(name: str, ann_file: str) -> None:
    """Images are files: an annotation file must not make training ask other machines for them.

    Folders are left to the user: names may be absolute or lead upwards, as they do where images lie beside the annotations.

    Raises:
        ValueError: for an address, an empty name, one with a NUL character, or no text.
    """
    if not isinstance(name, str) or not name or '://' in name or '\0' in name:
        raise ValueError(f'{ann_file} lists an image with the file_name {name!r:.200}; expected the name of a file')
