"""The report as Markdown. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genzoo.report.details import ByClass, Swept, by_class, sweeps
from genzoo.report.measures import Cell, Line, Measure, Table
from genzoo.report.table import families_table, table_of
from genzoo.report.text import ARROWS, brief, escape_markdown, number
from genzoo.report.verdicts import answers, choice
from genzoo.results import Environment, Results, Stability


def measures_down(table: Table, lines: Sequence[Line]) -> str:
    """Measures down, models across: for many measures of a few models."""
    shown = table.shown(lines)
    head = ["", *(escape_markdown(table.entries[i].label) for i in shown)]
    return _grid(head, [[_title(line.measure), *(_cell(line.cells[i]) for i in shown)] for line in lines])


def models_down(table: Table, lines: Sequence[Line]) -> str:
    """Models down, measures across: for a few measures, each with its first detail alone."""
    shown = table.shown(lines)
    rows = [[escape_markdown(table.entries[i].label), *(_cell(line.cells[i], most=1) for line in lines)] for i in shown]
    return _grid(["model", *(_title(line.measure) for line in lines)], rows)


def _title(measure: Measure) -> str:
    return f"{escape_markdown(brief(measure.title))} {ARROWS[measure.better]}".strip()


def _cell(cell: Cell, most: int | None = None) -> str:
    text = f"**{escape_markdown(cell.text)}**" if cell.best else escape_markdown(cell.text)
    return text + "".join(f"<br><sub>{escape_markdown(line)}</sub>" for line in cell.details[:most])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def class_table(part: ByClass) -> str:
    """One measure, classes down and models across, each model's weakest class in italics."""

    def cells(row: int, found: Sequence[Cell]) -> Iterator[str]:
        for cell, weakest in zip(found, part.weakest, strict=True):
            yield f"*{escape_markdown(cell.text)}*" if row == weakest else escape_markdown(cell.text)

    head = [_title(part.measure), *map(escape_markdown, part.labels)]
    return _grid(head, [[escape_markdown(name), *cells(i, found)] for i, (name, found) in enumerate(part.rows)])


def sweep_table(sweep: Swept) -> str:
    """The values of an option down, and the two measures that it trades across."""
    head = [escape_markdown(sweep.option), *map(escape_markdown, sweep.titles)]
    return _grid(head, [[number(value), *map(_cell, cells)] for value, *cells in sweep.rows])


def verdict_list(table: Table) -> Iterator[str]:
    """What to choose for what, and an item for each theme."""
    chosen = choice(table)
    if chosen:
        yield from (f"**{escape_markdown(chosen)}**", "")
    for answer in answers(table):
        yield f"- **{answer.theme.title}.** {escape_markdown(f'{answer.lead} {answer.others}'.strip())}"


def made_by(made: str, command: str, environment: Environment) -> str:
    """When, by which command, on what: one sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return escape_markdown(
        f"Made {made} by {command} on {environment.processor}, {environment.threads} threads "
        f"({environment.device}, {environment.platform}); {versions}."
    )


def markdown(record: Results | Sequence[Stability], sort: str | None = None) -> str:
    """The report as Markdown; of training alone where nothing was compared."""
    lines: list[str] = []
    if isinstance(record, Results):
        lines += _comparison(record, table_of(record, sort))
    for part in record.stability if isinstance(record, Results) else record:
        lines += _training(part, families_table(part))
    return "\n".join(lines)


def _comparison(results: Results, table: Table) -> Iterator[str]:
    rivals = [entry for entry in table.entries if entry.competes]
    yield from (f"# {len(rivals)} models on {escape_markdown(results.dataset)}", "")
    yield from (*verdict_list(table), "")
    for theme, lines in table.themes():
        if theme.key == "stability":
            continue  # it has a part of its own
        yield from (f"## {theme.title}: {theme.question}", "", measures_down(table, lines), "")
    yield (
        "**Bold** is the best of the models; below each value its 95 % interval, where one is known. "
        f"n = {results.n} images a model"
        + (f" and repetition, {results.repeats} repetitions" if results.repeats > 1 else "")
        + f", seeds {escape_markdown(results.seeds)}, against {results.reference_n} real images; features: "
        f"{escape_markdown(results.extractor)} (sha256 {results.digest})."
    )
    yield ""
    yield from _details(results, table)
    failed = [entry for entry in table.entries if entry.model.failed]
    yield from (f"- {escape_markdown(e.label)} failed: {escape_markdown(e.model.failed or '')}" for e in failed)
    yield from ("", "## Settings", "", made_by(results.made, results.command, results.environment), "")
    for entry in rivals:
        model = entry.model
        settings = ", ".join(f"{key}={value}" for key, value in model.options.items())
        yield f"- {escape_markdown(model.name)}: {escape_markdown(settings) or 'no options'}"
        if model.environment is not None or model.command is not None:
            environment, command = model.environment or results.environment, model.command or results.command
            yield f"  {made_by(results.made, command, environment)}"


def _details(results: Results, table: Table) -> Iterator[str]:
    """Every turn of an option, every class, and where the pictures are."""
    for sweep in sweeps(table):
        yield from (f"## {escape_markdown(f'{sweep.label}: {sweep.option}')}", "", sweep_table(sweep), "")
        yield from (f"{sweep.n} images at each value: hold these numbers against one another only.", "")
    classes = by_class(table, results.classes)
    if classes:
        yield from ("## Class by class", "", "*In italics*, each model's weakest class.", "")
    for part in classes:
        yield from (class_table(part), "")
    yield from (
        "The page report.html beside this one holds the same numbers, and in pictures what each model makes of the "
        "same seeds, the training images nearest to it, and quality against time, control and training.",
        "",
    )


def _training(record: Stability, table: Table) -> Iterator[str]:
    yield from (f"# Stability of training on {escape_markdown(record.dataset)}", "")
    yield from (*verdict_list(table), "")
    yield from (measures_down(table, table.lines), "")
    for family in record.families:
        for run in family.runs:
            why = run.failed or run.collapsed
            if why:
                yield f"- {escape_markdown(family.name)}, seed {run.seed}: {escape_markdown(why)}"
    yield ""
    yield f"Distances at n = {record.n}; features: {escape_markdown(record.extractor)} (sha256 {record.digest})."
    yield from ("", made_by(record.made, record.command, record.environment), "")
