"""The scripts of benchmarks/ and every result that is committed there."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from genzoo.bench.records import read_benchmark
from genzoo.registry import default_zoo
from genzoo.results import Environment, Stability, read_results

HERE = Path(__file__).parent.parent / "benchmarks"
COMMITTED = sorted(HERE.glob("results/**/*.json"))


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts import each other as neighbours, as they do when one is started."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


def script(name: str) -> Any:
    return importlib.import_module(name)


# -- what is committed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_every_committed_result_keeps_the_rules(path: Path) -> None:
    form = json.loads(path.read_text())["format"]
    if form == "genzoo.bench/1":
        assert read_benchmark(path).rows
    elif form == "genzoo.solvers/1":
        curve = script("sampling").Curve.model_validate_json(path.read_bytes())
        assert curve.weights == default_zoo().card(curve.model).weights.sha256
        assert all(point.n == curve.n for point in curve.points)
        # The table and the plot are those of this file.
        page = script("solver_page")
        assert path.with_suffix(".md").read_text() == page.markdown(curve)
        assert path.with_suffix(".svg").exists()
    elif form == "genzoo.speed/1":
        assert script("speed").Comparisons.model_validate_json(path.read_bytes()).rows
    elif form == "genzoo.training-speed/1":
        assert script("training").Steps.model_validate_json(path.read_bytes()).rows
    elif form == "genzoo.loading/1":
        found = json.loads(path.read_text())
        assert found["command"].startswith("python benchmarks/loading.py")
        assert Environment.model_validate(found["environment"]).versions["torch"]
    elif form == "genzoo.stability/1":
        assert Stability.model_validate_json(path.read_bytes()).families
    else:
        assert read_results(path).models


# -- ratios ------------------------------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_seconds() -> None:
    ratio = script("ratios").Ratio.of([1.0, 2.0, 1.0], [2.0, 4.0, 3.0])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 3.0)


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    ratio = script("ratios").interleaved(lambda: order.append("a"), lambda: order.append("b"), 4)
    assert "".join(order) == "ab" + "abbaabba"
    assert len(ratio.first) == len(ratio.second) == 4


# -- the solvers' curve ------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    return script("sampling").Bench(default_zoo(), "ddpm.fashion-mnist", tmp_path, 1e6)


def test_a_setting_has_the_steps_that_its_evaluations_allow(bench: Any) -> None:
    for scheduler, guidance, nfe, steps in (
        ("ddim:spacing=trailing", "1", 8, 8), ("ddim:spacing=trailing", "2", 9, 4),
        ("flow-heun:spacing=trailing", "1", 8, 4), ("pndm:spacing=trailing", "1", 20, 11),
        ("ddpm:spacing=trailing", "1", 1000, 1000),
    ):  # fmt: skip
        found = bench.at(scheduler, nfe, guidance)
        assert found.steps == steps
        more = found.model_copy(update={"steps": steps + 1})
        assert bench.nfe(found) <= nfe
        assert steps == 1000 or bench.nfe(more) > nfe
    assert bench.at("ddim", 1, "2") is None


def test_methods_that_are_the_same_are_one(bench: Any) -> None:
    kept, skipped = script("solvers").fitting(bench, ["ddim", "euler", "ddpm", "unipc", "lcm"], "trailing")
    assert kept == ["ddim:spacing=trailing", "ddpm:spacing=trailing", "unipc:spacing=trailing"]
    assert "same steps as ddim" in skipped["euler"]
    assert "distilled" in skipped["lcm"]


def test_nothing_is_made_twice(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = script("sampling")
    monkeypatch.setattr(sampling, "BATCH", 10)
    setting = sampling.Setting(scheduler="ddim:spacing=trailing", steps=1)
    few = bench.measure(setting, 20)
    again = sampling.Bench(default_zoo(), "ddpm.fashion-mnist", tmp_path, 1e6)
    made: list[int] = []
    generate = type(again.model).generate
    monkeypatch.setattr(
        type(again.model), "generate", lambda self, seeds, **more: made.extend(seeds) or generate(self, seeds, **more)
    )
    assert again.measure(setting, 20) == few
    assert made == []
    more = again.measure(setting, 30)
    assert made == list(range(20, 30))
    # As if all had been made at once.
    fresh = sampling.Bench(default_zoo(), "ddpm.fashion-mnist", tmp_path / "fresh", 1e6).measure(setting, 30)
    assert more.value == pytest.approx(fresh.value, rel=1e-9)


def test_a_point_that_would_not_be_done_in_time_is_not_begun(tmp_path: Path) -> None:
    sampling = script("sampling")
    setting = sampling.Setting(scheduler="ddim", steps=1)
    with pytest.raises(sampling.Spent, match="time that is left"):
        sampling.Bench(default_zoo(), "ddpm.fashion-mnist", tmp_path, 0.0).measure(setting, 20)
    with pytest.raises(sampling.Spent, match="--limit"):
        sampling.Bench(default_zoo(), "ddpm.fashion-mnist", tmp_path, 1e6, limit=0).measure(setting, 20)


def test_the_search_takes_the_cheapest_that_is_as_good(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers, sampling = script("solvers"), script("sampling")

    def measure(setting: Any, n: int) -> Any:
        nfe = bench.nfe(setting)
        value = 1.0 if setting == solvers.ANCHOR else 12 / nfe - (0.6 if setting.name == "unipc" else 0)
        return sampling.Point(
            setting=setting, nfe=nfe, n=n, value=value, low=None, high=None, accuracy=None, seconds=0.0, made="now"
        )

    monkeypatch.setattr(bench, "measure", measure)
    found = solvers.search(bench, "genzoo", ["ddim", "unipc"], ["trailing", "linspace"], ["1", "2"], 100)
    # 12 / 8 - 0.6 is the first at most 1.
    assert (found.point.nfe, found.point.setting.name, found.goal) == (8, "unipc", 1.0)
    none = solvers.search(bench, "genzoo", ["ddim"], ["trailing"], ["1"], 100)
    assert none.point is not None
    assert none.point.nfe == 12


def test_the_command_writes_curve_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers = script("solvers")
    arguments = ["-n", "20", "--schedulers", "ddim,unipc", "--nfe", "3,5", "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(solvers.main, [*arguments, "-o", str(tmp_path / "solvers.json")], catch_exceptions=False)
    assert done.exit_code == 0
    curve = script("sampling").Curve.model_validate_json((tmp_path / "solvers.json").read_bytes())
    assert {point.nfe for point in curve.points} == {3, 5}
    assert (tmp_path / "solvers.md").read_text() == script("solver_page").markdown(curve)
    assert script("solver_page").svg(curve) == (tmp_path / "solvers.svg").read_text()


# -- the limit and the peer --------------------------------------------------------------------------------------------


def test_the_calls_of_a_network_are_recorded_with_their_shapes() -> None:
    limit = script("limit")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1), torch.nn.Flatten())
    seen = limit.calls_of(lambda: torch.nn.functional.linear(network(torch.zeros(2, 3, 5, 5)), torch.zeros(7, 100)))
    assert seen == {
        ("conv", ((2, 3, 5, 5), (4, 3, 3, 3)), ((1, 1), (1, 1), (1, 1), 1)): 1,
        ("conv", ((2, 4, 5, 5), (4, 4, 1, 1)), ((1, 1), (0, 0), (1, 1), 1)): 1,
        ("product", ((2, 100), (100, 7)), ()): 1,
    }
    for signature in seen:
        shapes = {tuple(call().shape) for call in limit.candidates(signature)}
        assert shapes == ({(2, 7)} if signature[0] == "product" else {(2, 4, 5, 5)})


def test_the_limit_is_the_sum_of_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = script("limit")
    monkeypatch.setattr(limit, "quickest", lambda call, clock, seconds: 0.5)
    layers = [torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(75, 2))
    assert limit.limit_of(lambda: network(torch.zeros(1, 3, 5, 5))) == 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm-cifar10-32", "unet-6m", "ddpm.fashion-mnist"])
def test_both_libraries_make_the_same_pixels(name: str) -> None:
    assert script("peers").Pair(name).difference(2, 4) < script("speed").BOUND


@pytest.mark.slow
def test_nothing_grew_slower_than_the_baseline() -> None:
    guard = script("guard")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert guard.fallen(guard.measure()) == []
    finally:
        torch.set_num_threads(threads)
