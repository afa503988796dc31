"""What the README says is what the repository holds."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from genzoo.results import read_results

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def script(name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_committed_results() -> None:
    readme = script("readme")
    results = read_results(readme.KEPT)
    assert readme.START + readme.section(results) + readme.END in README
    assert readme.PICTURE.exists()


def kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found


def from_to(values: Iterable[float], digits: int) -> str:
    """As "1.43 to 1.60 times", or "1.08 times" where all are that."""
    ends = list(dict.fromkeys(f"{value:.{digits}f}" for value in sorted(values)))
    return f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))} times"


def test_the_factors_are_those_of_the_committed_results() -> None:
    said = " ".join(README.split())
    eager = [*kept("speed")["rows"], *kept("speed-cifar10-32")["rows"]]
    compiled = kept("speed-compiled")["rows"]

    def faster(rows: list[dict[str, Any]], network: str) -> str:
        return from_to((row["speedup"]["value"] for row in rows if row["network"] == network), 2)

    def paces(rows: list[dict[str, Any]], *batches: int) -> str:
        asked = [row for row in rows if row["batch"] in batches]
        shares = [100 * row["limit_seconds"] / row["forward_seconds"] for row in asked]
        return f"{min(shares):.0f} to {max(shares):.0f} %"

    assert f"{faster(eager, 'ddpm.fashion-mnist')} diffusers on the shipped network" in said
    assert f"{faster(eager, 'unet-6m')} on one of 6.5 M parameters" in said
    assert f"{faster(eager, 'ddpm-cifar10-32')} on ddpm-cifar10-32" in said
    assert f"that is {paces(eager, 8, 64)}, for one image {paces(eager, 1)}" in said
    assert f"weights as constants, {faster(compiled, 'ddpm.fashion-mnist')} on the shipped network" in said
    assert f"{faster(compiled, 'unet-6m')} on the one of 6.5 M" in said
    assert f"at {paces(compiled, 8, 64)} of that pace, for one image {paces(compiled, 1)}" in said
    ratios, intervals = kept("loading")["ratios"], kept("loading")["intervals"]
    load = f"{ratios['load']:.2f} [{', '.join(f'{bound:.2f}' for bound in intervals['load'])}]"
    assert f"({load}; {ratios['start']:.2f} from the start of the process)" in said
    for name in ("solvers", "guidance"):
        assert f"(benchmarks/results/{name}.md), n = {kept(name)['n']}" in said
    races = kept("time-to-quality")["rows"]
    (anchor,) = (row["faster"]["value"] for row in races if row["rival"]["library"] == "genzoo")
    rivals = [row["faster"]["value"] for row in races if row["rival"]["library"] == "diffusers"]
    assert f"{anchor:.0f} times faster than DDPM, and {from_to(rivals, 1)} faster than what" in said


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_committed_results_are_of_the_shipped_weights() -> None:
    from genzoo.registry import default_zoo

    results = read_results(ROOT / "benchmarks" / "results" / "fashion-mnist.json")
    for model in results.models:
        if model.kind == "model":
            card = default_zoo().card(model.name)
            assert card.weights is not None
            assert model.weights == card.weights.sha256
    extractor = default_zoo().make("extractor", "fashion-classifier")
    assert results.digest == extractor.digest
