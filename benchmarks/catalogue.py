"""Put measured results into the cards of registry.yaml.

genzoo compare -n 2000 --no-speed -o benchmarks/run2
genzoo compare ddpm.fashion-mnist -n 2000 --guidance 1 --no-speed -o benchmarks/run1
python benchmarks/catalogue.py benchmarks/run2/results.json benchmarks/run1/results.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from genzoo.cards import read_catalogue
from genzoo.results import Results, read_results

CATALOGUE = Path(__file__).parent.parent / "registry.yaml"
METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage", "label-accuracy")
HEAD = "".join(line + "\n" for line in CATALOGUE.read_text().splitlines() if line.startswith("#"))


class Dumper(yaml.SafeDumper):
    """Lists of plain values, and mappings of numbers, on one line."""


def _list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


def _numeric(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_numeric, value.values()))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(dumper: yaml.SafeDumper, data: dict[str, Any]) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=_numeric(data))


Dumper.add_representer(list, _list)
Dumper.add_representer(dict, _mapping)


def measured(results: Results, name: str) -> list[dict[str, Any]]:
    """The scores of one model as a card's results."""
    model = next((model for model in results.models if model.name == name), None)
    if model is None:
        return []
    settings = ", ".join(f"{key}={value}" for key, value in model.options.items()) or "the model's defaults"
    rows = []
    for metric in METRICS:
        score = model.score(metric)
        if score is not None:
            row: dict[str, Any] = {"metric": metric, "value": round(score.value, 5)}
            if score.low is not None and score.high is not None:
                row |= {"low": round(score.low, 5), "high": round(score.high, 5)}
            rows.append(
                {**row, "n": score.n, "extractor": results.extractor, "settings": settings, "command": results.command}
            )
    return rows


def main(paths: list[Path]) -> None:
    """Rewrite the catalogue with the results of all files, in their order."""
    every = [read_results(path) for path in paths]
    document = yaml.safe_load(CATALOGUE.read_text())
    for card in document["cards"]:
        found = [row for results in every for row in measured(results, card["name"])]
        card["results"] = found or card.get("results", [])
    CATALOGUE.write_text(HEAD + yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110))
    read_catalogue(CATALOGUE)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
