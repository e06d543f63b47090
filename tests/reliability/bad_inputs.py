"""The table of bad inputs: ``python -m tests.reliability.bad_inputs > docs/bad_input.md`` writes it for people."""

from . import bad_annotations, bad_checkpoints, bad_commands, bad_configs, bad_images
from .bad_input import ANNOUNCED, REFUSED, WORKS, Row

SECTIONS = {
    'Annotations': bad_annotations.ROWS,
    'Images': bad_images.ROWS,
    'Configs': bad_configs.ROWS,
    'Checkpoints': bad_checkpoints.ROWS,
    'Commands': bad_commands.ROWS,
}
ROWS = [row for rows in SECTIONS.values() for row in rows]
OUTCOMES = {REFUSED: '', ANNOUNCED: 'goes on, with a warning: ', WORKS: 'goes on: '}

INTRODUCTION = """# Bad input

What goes in, what the user reads, and what is untouched afterwards. Written by `python -m tests.reliability.bad_inputs` from the rows of
`tests/reliability/`; `tests/reliability/test_bad_inputs.py` plants every input, reads the message, and compares all files with what they
were before, byte for byte. Messages are shortened (`...`), and paths stand without their folders. Where nothing else is said, the input is
refused.
"""


def table() -> str:
    parts = [INTRODUCTION]
    for title, rows in SECTIONS.items():
        lines = [f'| {row.goes_in} | {OUTCOMES[row.outcome]}{_code(row.reads)} | {row.kept} |' for row in rows]
        parts.append(
            '\n'.join(
                [f'## {title}: {len(rows)}', '', '| what goes in | what the user reads | what is untouched |', '|---|---|---|', *lines]
            )
            + '\n'
        )
    return '\n'.join(parts)


def _code(text: str) -> str:
    """As code, that Markdown does not interpret."""
    quote = '``' if '`' in text else '`'
    return f'{quote}{text.strip()}{quote}'.replace('|', '\\|')


def identity(row: Row) -> str:
    return row.goes_in.replace(' ', '-')


if __name__ == '__main__':
    print(table(), end='')
