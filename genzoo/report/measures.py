"""What a table is made of: themes, measures, cells, and the models that stand beside one another.

Light: never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from genzoo.report.text import NOTHING
from genzoo.results import ModelResult
from genzoo.runs import Family


@dataclass(frozen=True)
class Theme:
    """What a chooser asks: a word, and the question."""

    key: str
    title: str
    question: str


#: In the order of the report.
THEMES = (
    Theme("quality", "Quality", "Do the pictures look like real ones?"),
    Theme("diversity", "Diversity", "Is all that exists made, or only some of it?"),
    Theme("control", "Control", "Does it make what it was asked for?"),
    Theme("stability", "Stability", "Does training end well, whatever the seed?"),
    Theme("speed", "Speed", "How long does one wait?"),
    Theme("cost", "Cost", "What does it take to keep and to run?"),
)


@dataclass(frozen=True)
class Measure:
    """One thing that was measured.

    Attributes:
        key, title, unit: its name, in a program and for people, and its unit.
        better: "lower" or "higher".
        theme: the key of its theme.
        about: what it means, in a sentence.
        interval: what the cells' intervals are.
        counted: an exact number, which needs no interval to be believed.
        local: depends on the machine, so that only rows of one machine may be held against each other.
    """

    key: str
    title: str
    better: str
    theme: str
    about: str
    unit: str = ""
    interval: str = "95 % intervals"
    counted: bool = False
    local: bool = False


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        value: for comparing; None where there is none.
        text: as it is read.
        low, high: its interval, where one is known.
        details: what stands beneath it in small type, line by line.
        best: whether it is the best of the models that it may be held against.
    """

    value: float | None = None
    text: str = NOTHING
    low: float | None = None
    high: float | None = None
    details: tuple[str, ...] = ()
    best: bool = False

    def overlaps(self, other: Cell) -> bool:
        """Whether both intervals are known and share a value."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.low <= other.high and other.low <= self.high


EMPTY = Cell()

#: How a cell is read from what is known of one model.
Reader = Callable[["Entry"], Cell | None]


@dataclass(frozen=True)
class Entry:
    """One model, or real images, as it stands in the report.

    Attributes:
        model: what was measured of it.
        label: its name, shortened where all names share an ending, lengthened where two would be the same.
        index: its place in the results, which decides its colour and mark.
        machine: which of the machines it was measured on, from 0.
        place: how that machine differs from the others; empty where there is one.
        family: how its family trains, where stability was measured and tells.
    """

    model: ModelResult
    label: str
    index: int
    machine: int = 0
    place: str = ""
    family: Family | None = None

    @property
    def competes(self) -> bool:
        """Real images are the floor, and win nothing."""
        return self.model.kind == "model"


@dataclass(frozen=True)
class Line:
    """One measure over all entries."""

    measure: Measure
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Measures over entries: ``lines[i].cells[j]`` is of ``entries[j]``."""

    entries: tuple[Entry, ...]
    lines: tuple[Line, ...]

    def themes(self) -> list[tuple[Theme, list[Line]]]:
        """The lines by theme; a theme's first line stands for it."""
        found = [(theme, [line for line in self.lines if line.measure.theme == theme.key]) for theme in THEMES]
        return [(theme, lines) for theme, lines in found if lines]

    def shown(self, lines: Sequence[Line]) -> list[int]:
        """Which entries stand in a table of these lines: no failed model; real images where they have a number."""
        return [
            i
            for i, entry in enumerate(self.entries)
            if not entry.model.failed and (entry.competes or any(line.cells[i].value is not None for line in lines))
        ]

    def rivals(self, line: Line) -> list[list[int]]:
        """Which entries may be held against each other in a line: the models with a number, of one machine each."""
        known = [i for i, e in enumerate(self.entries) if e.competes and line.cells[i].value is not None]
        if not line.measure.local:
            return [known] if known else []
        ordered = sorted(known, key=lambda i: self.entries[i].machine)
        return [list(group) for _, group in groupby(ordered, key=lambda i: self.entries[i].machine)]

    def several_machines(self) -> bool:
        """Whether some measure that depends on the machine has numbers from more than one."""
        return any(len(self.rivals(line)) > 1 for line in self.lines)
