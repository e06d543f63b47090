"""What a report is made of, whatever form it is written in. All text is plain and untrusted; the writers escape it."""

from dataclasses import dataclass
from typing import ClassVar

BAD, WARNING = 'bad', 'warning'  # tones: red, and amber


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        tone: '', ``BAD`` or ``WARNING``.
        series: number of the model whose mark stands before the text.
    """

    text: str
    tone: str = ''
    series: int | None = None


@dataclass(frozen=True)
class Text:
    kind: ClassVar[str] = 'text'
    text: str
    tone: str = ''


@dataclass(frozen=True)
class Points:
    """A list."""

    kind: ClassVar[str] = 'points'
    items: tuple[str, ...]
    tone: str = ''


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of which heads its row.

    Attributes:
        folded: shown on demand where the form allows it.
        step: Markdown has every ``step``-th row and the last one only.
    """

    kind: ClassVar[str] = 'table'
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    folded: bool = False
    step: int = 1

    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        description: the gist in words, for those who do not see it.
        svg: safe to put into HTML as it is.
    """

    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Figure:
    """Charts that share a legend.

    Attributes:
        models: (series number, name) of each legend entry.
        table: the numbers; None where a table beside the figure has them.
    """

    kind: ClassVar[str] = 'figure'
    caption: str
    panels: tuple[Panel, ...]
    models: tuple[tuple[int, str], ...] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Picture:
    """``file`` is relative to the report's folder; ``label`` names the image."""

    file: str
    alt: str
    label: str


@dataclass(frozen=True)
class Pictures:
    kind: ClassVar[str] = 'pictures'
    heading: str
    rule: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Code:
    """Text as it is typed or printed."""

    kind: ClassVar[str] = 'code'
    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A chapter.

    Attributes:
        reading: one sentence on how to read it, and what it does not tell.
        reading_last: that sentence stands below the blocks.
    """

    id: str
    title: str
    reading: str
    blocks: tuple = ()
    reading_last: bool = False


@dataclass(frozen=True)
class Report:
    """The whole.

    Attributes:
        alerts: what makes the results incomplete or the comparison unfair; shown before all else.
        facts: data, budget and date in a line.
    """

    title: str
    facts: tuple[str, ...]
    alerts: tuple[str, ...]
    sections: tuple[Section, ...]
