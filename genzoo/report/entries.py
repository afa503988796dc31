"""Who stands in a report, and under which name. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from genzoo.report.measures import Entry
from genzoo.report.text import brief, differences
from genzoo.results import Environment, ModelResult, Results
from genzoo.runs import Family


def entries_of(results: Results) -> tuple[Entry, ...]:
    """The models in the order of the results, each with its name in the report, its machine and its family."""
    machines: list[Environment] = []
    numbers = []
    for model in results.models:
        environment = model.environment or results.environment
        if environment not in machines:
            machines.append(environment)
        numbers.append(machines.index(environment))
    places = differences([described(machine) for machine in machines])
    families = [family for record in results.stability for family in record.families]
    labels = _labels(results, [places[i] for i in numbers])
    return tuple(
        Entry(model, label, i, machine, places[machine], _family(model, families))
        for i, (model, label, machine) in enumerate(zip(results.models, labels, numbers, strict=True))
    )


def described(environment: Environment) -> dict[str, Any]:
    """A machine with its software, flat."""
    return {
        "device": environment.device,
        "processor": environment.processor,
        "threads": environment.threads,
        "platform": environment.platform,
        **environment.versions,
    }


def _family(model: ModelResult, families: Sequence[Family]) -> Family | None:
    """The one family that trains the model's generator; None where that is nobody, or could be several."""
    found = [family for family in families if family.recipe == model.generator]
    return found[0] if len(found) == 1 and model.kind == "model" else None


def _labels(results: Results, places: Sequence[str]) -> list[str]:
    models = results.models
    # Where everybody is ".fashion-mnist", that is said once, in the title.
    ending = f".{results.dataset}"
    rivals = [model.name for model in models if model.kind == "model"]
    cut = len(ending) if rivals and all(name.endswith(ending) and name != ending for name in rivals) else 0
    labels = [brief(m.name[:-cut] if cut and m.kind == "model" else m.name) or "unnamed" for m in models]
    for same in _repeated(labels):
        apart = differences([_settings(models[i]) for i in same])
        for i, words in zip(same, apart, strict=True):
            labels[i] += f" ({brief(words)})" if words else ""
    for same in _repeated(labels):
        for i in same:
            labels[i] += f" ({brief(places[i])})" if places[i] else ""
    for same in _repeated(labels):
        for turn, i in enumerate(same[1:], start=2):
            labels[i] += f" #{turn}"
    return labels


def _settings(model: ModelResult) -> dict[str, Any]:
    """What may set one model apart from another of its name."""
    return {**model.options, **({"weights": model.weights[:8]} if model.weights else {})}


def _repeated(labels: Sequence[str]) -> Iterator[list[int]]:
    """The places of every label that stands there more than once."""
    for label in dict.fromkeys(labels):
        same = [i for i, other in enumerate(labels) if other == label]
        if len(same) > 1:
            yield same
