"""One thing that the pre-flight has found, and how findings are shown."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SEVERITIES = (ERROR, WARNING, NOTE)
AREAS = ('environment', 'data', 'recipe')


@dataclass(frozen=True)
class Finding:
    """What was found and what to do about it.

    Attributes:
        area: one of ``AREAS``.
        severity: ``ERROR``: training or evaluation stops, or its result means something else than it seems to; ``WARNING``: the result is
            probably worse than it could be; ``NOTE``: good to know.
        finding: one line that names the number found.
        advice: one line.
    """

    area: str
    severity: str
    finding: str
    advice: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """By area, the most severe first; otherwise in the order found."""
    return sorted(findings, key=lambda found: (AREAS.index(found.area), SEVERITIES.index(found.severity)))


def guarded(area: str, check: Callable[..., list[Finding]], *args) -> list[Finding]:
    """What a check finds; a check that a config's or a file's odd content breaks is a finding itself, and the others still run."""
    try:
        return check(*args)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = check.__name__.removeprefix('check_').replace('_', ' ')
        what = f'the check "{name}" was not made: {type(error).__name__}: {error} ({place.name}, line {place.lineno})'
        return [Finding(area, WARNING, what, 'look for values of an unusual type in the config or the annotation file')]


def part(count: int, total: int, what: str) -> str:
    """'3 of 160 images (1.9 %)'."""
    share = 100 * count / max(1, total)
    return f'{count} of {total} {what} ({share:.1f} %)' if 0.05 <= share < 99.95 else f'{count} of {total} {what}'


def listed(values: Sequence, most: int = 5) -> str:
    """'a', 'b', 'c' and 4 more."""
    shown = ', '.join(repr(value) for value in values[:most])
    return shown + (f' and {len(values) - most} more' if len(values) > most else '')


def text(findings: Sequence[Finding], areas: Sequence[str] = AREAS) -> str:
    """Grouped by area: a line for each finding, a line for each advice, a count at the end.

    Args:
        areas: those that were looked at.
    """
    lines = []
    for area in areas:
        lines.append(area)
        of_area = [found for found in ordered(findings) if found.area == area]
        for found in of_area:
            lines += [f'  {found.severity.upper():7}  {found.finding}', f'           -> {found.advice}']
        lines += [] if of_area else ['  nothing found']
        lines.append('')
    counts = [sum(found.severity == severity for found in findings) for severity in SEVERITIES]
    total = ', '.join(f'{count} {name}{"s" * (count != 1)}' for count, name in zip(counts, SEVERITIES))
    return '\n'.join([*lines, total])
