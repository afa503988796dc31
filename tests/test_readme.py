"""What the README says is what the repository holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

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
