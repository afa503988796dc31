"""Who wins what, by how much, and whether the intervals allow saying so. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genzoo.report.measures import Cell, Entry, Line, Measure, Table, Theme
from genzoo.report.text import listed, number

#: Of what depends on the machine, where no two models were measured on one.
APART = "measured on different machines, so nobody is called better"


#: Names that one sentence holds.
MANY = 4


@dataclass(frozen=True)
class Verdict:
    """What one measure says.

    Attributes:
        measure: which.
        winners: the best, and all whom the intervals cannot tell from it.
        clear: whether one model wins beyond doubt.
        text: a sentence, without its full stop.
    """

    measure: Measure
    winners: tuple[str, ...]
    clear: bool
    text: str


@dataclass(frozen=True)
class Answer:
    """What a theme says.

    Attributes:
        theme: which.
        lead: the verdict of its first measure, with what real images reach.
        others: what its other measures add; empty where there are none.
        winner: who wins the first measure beyond doubt; None where nobody does, or where its rivals were not all
            measured on one machine.
    """

    theme: Theme
    lead: str
    others: str
    winner: str | None


def answers(table: Table) -> list[Answer]:
    """The verdicts by theme, those of its first measure in full."""
    found = []
    for theme, lines in table.themes():
        first, *rest = [verdicts(table, line) for line in lines]
        if not first and len(table.rivals(lines[0])) < 2:
            continue
        lead = f"{lines[0].measure.title}: " + ("; ".join(verdict.text for verdict in first) or APART)
        floor = next((lines[0].cells[i] for i, e in enumerate(table.entries) if not e.competes), None)
        if floor is not None and floor.value is not None:
            lead += f"; real images reach {floor.text}"
        # Who wins on one machine may lose to a rival that was measured on another.
        together = len(table.rivals(lines[0])) == 1
        winner = first[0].winners[0] if together and first and first[0].clear else None
        others = _others([verdict for group in rest for verdict in group], winner)
        found.append(Answer(theme, f"{lead}.", others, winner))
    return found


def choice(table: Table) -> str:
    """What to choose for what, in one sentence; empty where there is nothing to choose between."""
    found = answers(table)
    winners = list(dict.fromkeys(answer.winner for answer in found if answer.winner))
    parts = [f"{name} for {listed([a.theme.title.lower() for a in found if a.winner == name])}" for name in winners]
    open_ones = [answer.theme.title.lower() for answer in found if answer.winner is None]
    sentences = [f"Choose {'; '.join(parts)}."] if parts else []
    if open_ones:
        sentences.append(f"No clear winner in {listed(open_ones)}.")
    return " ".join(sentences)


def standing(table: Table, line: Line, index: int) -> tuple[str, str]:
    """How an entry stands to the best of its rivals: "best", "level" or "behind" (or empty), and in words."""
    rivals = next((group for group in table.rivals(line) if index in group), [])
    if len(rivals) < 2:
        return "", ""
    cell = line.cells[index]
    top = next((line.cells[i] for i in rivals if line.cells[i].best), None)
    if top is None:
        return "level", "all equal"
    if cell.best:
        return "best", "best"
    if cell.overlaps(top):
        return "level", "level with the best"
    factor = _factor(line.measure, top, cell)
    worse = "more" if line.measure.better == "lower" else "less"
    if factor is None:
        return "behind", f"{_difference(line.measure, top, cell)} {worse}"
    return "behind", f"{number(factor)} times {worse}"


def verdicts(table: Table, line: Line) -> list[Verdict]:
    """What a measure says: one verdict; where it depends on the machine, one for each with two models or more."""
    machines = table.rivals(line)
    groups = [group for group in machines if len(group) > 1]
    sign = -1 if line.measure.better == "higher" else 1
    found = []
    for group in groups:
        ranked = sorted(group, key=lambda i: sign * (line.cells[i].value or 0.0))
        verdict = _verdict(line.measure, [(table.entries[i], line.cells[i]) for i in ranked])
        place = table.entries[group[0]].place
        if len(machines) > 1 and place:
            verdict = Verdict(verdict.measure, verdict.winners, verdict.clear, f"{verdict.text} (on {place})")
        found.append(verdict)
    return found


def _verdict(measure: Measure, ranked: Sequence[tuple[Entry, Cell]]) -> Verdict:
    (first, top), *rest = ranked
    equal = [entry.label for entry, cell in rest if cell.value == top.value]
    if equal:
        names = (first.label, *equal)
        return Verdict(measure, names, False, f"{_some(names)} are equal ({top.text})")
    close = [(entry, cell) for entry, cell in rest if top.overlaps(cell)]
    if close:
        names = (first.label, *(entry.label for entry, _ in close))
        shown = _some([f"{first.label} ({top.text})", *(f"{e.label} ({c.text})" for e, c in close)])
        return Verdict(measure, names, False, f"{shown} are too close to call: their {measure.interval} overlap")
    runner_up, second = rest[0]
    lead = f"{_by(measure, top, second)} ({top.text} against {second.text} of {runner_up.label})"
    if measure.counted or None not in (top.low, second.low):
        return Verdict(measure, (first.label,), True, f"{first.label} wins {lead}")
    return Verdict(measure, (first.label,), False, f"{first.label} is ahead {lead}, without an interval to trust it by")


def _others(rest: Sequence[Verdict], winner: str | None) -> str:
    clear: dict[str, list[str]] = {}
    for verdict in rest:
        if verdict.clear:
            clear.setdefault(verdict.winners[0], []).append(verdict.measure.title)
    words = [f"{name} {'also ' if name == winner else ''}wins {listed(titles)}" for name, titles in clear.items()]
    close = [verdict.measure.title for verdict in rest if len(verdict.winners) > 1]
    words += [f"{'too' if words else 'Too'} close to call: {listed(close)}"] if close else []
    ahead = [f"{v.measure.title} ({v.winners[0]})" for v in rest if len(v.winners) == 1 and not v.clear]
    words += [f"{'ahead' if words else 'Ahead'}, without an interval: {listed(ahead)}"] if ahead else []
    return f"{'; '.join(words)}." if words else ""


def _some(names: Sequence[str]) -> str:
    """The first few of many."""
    return listed(names) if len(names) <= MANY else listed([*names[: MANY - 1], f"{len(names) - MANY + 1} more"])


def _factor(measure: Measure, top: Cell, cell: Cell) -> float | None:
    """How many times the larger is the smaller; None where that says nothing, as of shares, 0 or opposite signs."""
    if measure.unit == "%":
        return None
    a, b = top.value or 0.0, cell.value or 0.0
    small, large = sorted((abs(a), abs(b)))
    return large / small if small > 0 and a * b > 0 else None


def _difference(measure: Measure, top: Cell, cell: Cell) -> str:
    size = number(abs((top.value or 0.0) - (cell.value or 0.0)))
    return f"{size} points" if measure.unit == "%" else size


def _by(measure: Measure, top: Cell, second: Cell) -> str:
    factor = _factor(measure, top, second)
    return f"by {_difference(measure, top, second)}" if factor is None else f"by a factor of {number(factor)}"
