"""Numbers as text. What is missing is ``-``."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

MISSING = '-'


def fixed(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f'{value:.{digits}f}'


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign, minus as wide as plus."""
    return MISSING if value is None else f'{value:+.{digits}f}'.replace('-', '−')


def integer(value: float | None) -> str:
    return fixed(value, 0)


def millions(count: float | None) -> str:
    return MISSING if count is None else f'{count / 1e6:.1f}'


def percent(share: float | None) -> str:
    """Without the sign, which stands in the column's title."""
    return MISSING if share is None else f'{100 * share:.1f}'


def mean_of(entry: Mapping | None) -> float | None:
    """Of ``{'mean': ..., 'std': ..., 'values': [...]}`` over seeds."""
    return (entry or {}).get('mean')


def mean_std(entry: Mapping | None, digits: int = 3, scale: float = 1.0) -> str:
    """``0.250 ± 0.020``; the mean alone where one seed says nothing about the spread.

    Args:
        scale: what both are multiplied with, for another unit.
    """
    if mean_of(entry) is None:
        return MISSING
    mean = fixed(entry['mean'] * scale, digits)
    return mean if entry.get('std') is None else f'{mean} ± {fixed(entry["std"] * scale, digits)}'


def time_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """The unit in which the longest time reads best, and its seconds."""
    longest = max((value for value in seconds if value is not None), default=0.0)
    return ('h', 3600.0) if longest >= 3600 else ('min', 60.0) if longest >= 60 else ('s', 1.0)


def moment(text: str) -> str:
    """An ISO time to the minute, as UTC; other text as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return time.astimezone(UTC).strftime('%Y-%m-%d %H:%M UTC') if time.tzinfo else time.strftime('%Y-%m-%d %H:%M')


def plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}{"es" if noun.endswith("s") else "s"}'


def joined(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    items = list(items)
    return ', '.join(items[:-1]) + f' and {items[-1]}' if len(items) > 1 else ''.join(items)


def short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + '…'
