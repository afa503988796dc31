"""The scripts of benchmarks/ and every result that is committed there."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from genzoo.bench.records import LEAST, read_benchmark
from genzoo.errors import OptionError
from genzoo.registry import default_zoo
from genzoo.results import Environment, Stability, read_results
from genzoo_plugins.diffusion.attention import attention
from genzoo_plugins.diffusion.convolution import Conv2d
from genzoo_plugins.diffusion.layers import Upsample
from genzoo_plugins.diffusion.linear import Linear

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
    if form == "genzoo.bench/2":
        rows = read_benchmark(path).rows
        assert rows
        for row in rows:
            # What --bound and --seconds loosen on one's own machine is not loosened here.
            assert row.task.bound is None
            assert row.whole is None or len(row.whole.wall) >= LEAST or sum(row.whole.wall) >= 10
    elif form == "genzoo.solvers/1":
        curve = script("measured").Curve.model_validate_json(path.read_bytes())
        assert curve.weights == default_zoo().card(curve.model).weights.sha256
        assert all(point.n == curve.n for point in curve.points)
        # The table and the plot are those of this file.
        page = script("solver_page")
        assert path.with_suffix(".md").read_text() == page.markdown(curve)
        assert path.with_suffix(".svg").exists()
    elif form == "genzoo.guidance/2":
        control = script("guidance").Control.model_validate_json(path.read_bytes())
        assert control.weights == default_zoo().card(control.model).weights.sha256
        page = script("guidance_page")
        for reading in control.readings:
            assert reading.scores.keys() == page.COLUMNS.keys()
            for score in reading.scores.values():
                assert score.n == control.n
                assert None not in (score.low, score.high)
                assert score.low <= score.value <= score.high + 1e-9  # all of them, by Wilson's formula
        assert path.with_suffix(".md").read_text() == page.markdown(control)
        assert path.with_suffix(".svg").exists()
    elif form == "genzoo.time-to-quality/2":
        races = script("time_to_quality").Races.model_validate_json(path.read_bytes())
        assert races.weights == default_zoo().card(races.model).weights.sha256
        # What is timed is what the searches found, and reaches the quality.
        found = script("measured").Curve.model_validate_json((path.parent / "solvers.json").read_bytes()).found
        confirmed = {one.within: one.point.setting for one in found}
        assert races.genzoo.setting == confirmed["genzoo"]
        rivals = [row.rival for row in races.rows if row.rival.confirmed]
        assert {rival.setting for rival in rivals} == {confirmed["diffusers"], script("solvers").ANCHOR}
        assert all(party.distance <= races.goal for party in (races.genzoo, *rivals))
    elif form == "genzoo.speed/2":
        assert script("speed").Comparisons.model_validate_json(path.read_bytes()).rows
    elif form == "genzoo.training-speed/1":
        steps = script("training").Steps.model_validate_json(path.read_bytes()).rows
        assert {step.precision for step in steps} == {"fp32", "bf16"}
        for step in steps:
            first, second = step.speedup.first, step.speedup.second
            assert len(first) >= LEAST
            assert script("ratios").Ratio.of(list(first), list(second), step.speedup.clock) == step.speedup
    elif form == "genzoo.loading/1":
        found = json.loads(path.read_text())
        assert found["command"].startswith("python benchmarks/loading.py")
        assert found["ratios"].keys() == found["intervals"].keys() == set(script("loading").TIMES)
        assert all(low <= found["ratios"][what] <= high for what, (low, high) in found["intervals"].items())
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
    names = ["ddim", "euler", "ddpm", "unipc", "lcm"]
    kept, skipped = script("solvers").fitting(bench, names, ["trailing"])
    assert kept == ["ddim:spacing=trailing", "ddpm:spacing=trailing", "unipc:spacing=trailing"]
    assert "same steps as ddim" in skipped["euler:spacing=trailing"]
    assert "distilled" in skipped["lcm"]


def test_own_grids_are_written_out(bench: Any) -> None:
    """A key that says nothing of the grid would go on naming what was measured on another, once a default changes."""
    kept, _ = script("solvers").fitting(bench, ["ddim", "heun", "flow-heun"], ["trailing", "own"])
    own = kept[3:]
    assert [spec.partition(":")[0] for spec in own] == ["ddim", "heun", "flow-heun"]
    schedule = bench.model.denoiser.schedule
    for spec in own:
        name = spec.partition(":")[0]
        made, default = (bench.zoo.make("scheduler", text) for text in (spec, name))
        assert made.grid(schedule, 7) == default.grid(schedule, 7)
        assert "spacing=" in spec


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


def made_up(bench: Any, monkeypatch: pytest.MonkeyPatch, flattered: str = "") -> Any:
    """Distances that fall with the evaluations; one that is ``flattered`` is good on the first seeds alone."""
    solvers, measured = script("solvers"), script("measured")

    def value(setting: Any, start: int) -> float:
        if setting == solvers.ANCHOR:
            return 1.0
        better = 0.6 if setting.name == "unipc" else 0.9 if setting.name == flattered and not start else 0.0
        return 12 / bench.nfe(setting) - better

    def measure(setting: Any, n: int, start: int = 0) -> Any:
        return measured.Point(
            setting=setting, nfe=bench.nfe(setting), start=start, n=n, value=value(setting, start), low=None, high=None,
            accuracy=None, seconds=0.0, made="now",
        )  # fmt: skip

    def difference(setting: Any, anchor: Any, n: int, start: int = 0) -> Any:
        mine, theirs = value(setting, start), value(anchor, start)
        return measured.Difference(
            setting=setting, start=start, n=n, value=mine - theirs, low=None, high=None, distance=mine, anchor=theirs
        )

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "difference", difference)
    return solvers


def test_the_search_takes_the_cheapest_that_is_as_good(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers = made_up(bench, monkeypatch)
    found = solvers.search(bench, "genzoo", ["ddim", "unipc"], ["trailing", "linspace"], ["1", "2"], 100)
    # 12 / 8 - 0.6 is the first at most 1.
    assert (found.point.nfe, found.point.setting.name, found.goal) == (8, "unipc", 1.0)
    assert (found.fresh.start, found.fresh.n, found.unconfirmed) == (100, 100, ())
    none = solvers.search(bench, "genzoo", ["ddim"], ["trailing"], ["1"], 100)
    assert none.point is not None
    assert none.point.nfe == 12


def test_a_setting_that_its_seeds_flattered_is_not_found(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers = made_up(bench, monkeypatch, flattered="ddim")
    found = solvers.search(bench, "genzoo", ["ddim", "unipc"], ["trailing"], ["1"], 100)
    assert (found.point.nfe, found.point.setting.name) == (8, "unipc")
    assert {one.setting.name for one in found.unconfirmed} == {"ddim"}
    page = script("solver_page")
    assert "did not on fresh seeds" in page.sentence(found)
    assert "On seeds 100 to 199" in page.sentence(found)


def test_a_difference_is_paired(bench: Any) -> None:
    """A setting against itself differs by nothing, whatever the seeds; against another, by the two distances."""
    sampling = script("sampling")
    one, other = (sampling.Setting(scheduler="ddim:spacing=trailing", steps=steps) for steps in (1, 2))
    same = bench.difference(one, one, 80)
    assert (same.value, same.low, same.high, same.verdict) == (0.0, 0.0, 0.0, "not told apart")
    apart = bench.difference(other, one, 80)
    assert apart.low < apart.value < apart.high
    assert apart.value == pytest.approx(bench.measure(other, 80).value - bench.measure(one, 80).value)
    later = bench.difference(other, one, 40, start=40)
    assert later.distance == pytest.approx(bench.measure(other, 40, start=40).value)
    assert later.distance != apart.distance


def test_what_was_measured_with_more_images_serves_fewer(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = script("sampling")
    setting = sampling.Setting(scheduler="ddim:spacing=trailing", steps=1)
    bench.measure(setting, 60)
    monkeypatch.setattr(bench, "images", lambda *given: pytest.fail("an image was made"))
    (point,) = bench.at_hand(40)
    assert (point.n, point.setting) == (40, setting)
    assert bench.at_hand(61) == []


def test_the_command_writes_curve_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solvers = script("solvers")
    arguments = ["-n", "20", "--schedulers", "ddim,unipc", "--nfe", "3,5", "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(solvers.main, [*arguments, "-o", str(tmp_path / "solvers.json")], catch_exceptions=False)
    assert done.exit_code == 0
    curve = script("measured").Curve.model_validate_json((tmp_path / "solvers.json").read_bytes())
    assert {point.nfe for point in curve.points} == {3, 5}
    assert curve.missing == {}
    more = ["-n", "20", "--schedulers", "ddim,unipc,heun", "--nfe", "5,8", "--limit", "0"]
    files = ["--work", str(tmp_path / "work"), "-o", str(tmp_path / "solvers.json")]
    again = CliRunner().invoke(solvers.main, [*more, *files], catch_exceptions=False)
    assert again.exit_code == 0
    curve = script("measured").Curve.model_validate_json((tmp_path / "solvers.json").read_bytes())
    # Heun's method has 7 evaluations for 8.
    unseen = dict.fromkeys(("ddim:spacing=trailing", "unipc:spacing=trailing"), (8,))
    assert curve.missing == {**unseen, "heun:spacing=trailing": (5, 8)}
    assert "?: not measured (4: 1 at 5, 3 at 8)" in (tmp_path / "solvers.md").read_text()
    assert (tmp_path / "solvers.md").read_text() == script("solver_page").markdown(curve)
    assert script("solver_page").svg(curve) == (tmp_path / "solvers.svg").read_text()
    # The features are elsewhere: the points of the file stand, and one more joins them.
    files[1] = str(tmp_path / "other")
    third = CliRunner().invoke(solvers.main, [*more, "--limit", "1", *files], catch_exceptions=False)
    assert third.exit_code == 0
    grown = script("measured").Curve.model_validate_json((tmp_path / "solvers.json").read_bytes())
    assert set(curve.points) < set(grown.points)
    assert len(grown.points) == len(curve.points) + 1


def test_differences_of_the_file_stand(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solvers, measured = made_up(bench, monkeypatch), script("measured")
    lines = ["ddim:spacing=trailing", "unipc:spacing=trailing"]
    points = [bench.measure(measured.Setting(scheduler=line, steps=10), 100) for line in lines]
    points.append(bench.measure(solvers.ANCHOR, 100))
    found = solvers.against_anchor(bench, points, lines, 100)
    assert [one.n for one in found] == [100, 100]
    monkeypatch.undo()
    monkeypatch.setattr(bench, "images", lambda *given: pytest.fail("an image was made"))
    fresh = [found[0].model_copy(update={"start": 100, "n": n}) for n in (50, 100)]
    search = measured.Found(within="genzoo", goal=1.0, point=None, unconfirmed=fresh[1:], tried=1)
    path = tmp_path / "solvers.json"
    measured.Curve.of(bench, 100, points=points, lines=lines, goal=[*found, fresh[0]], found=[search]).write(path)
    assert solvers.earlier(path, bench, 100) is not None
    # The largest sample of fresh seeds, and what is of other lines than this run's as well.
    for names in (lines, lines[:1], []):
        assert solvers.against_anchor(bench, points, names, 100) == [*found, fresh[1]]
    # A line that is new needs the anchor's images, which are not made where no more points are wanted.
    other = measured.Setting(scheduler="dpmpp-2m:spacing=trailing", steps=10)
    points.append(points[0].model_copy(update={"setting": other}))
    bench.limit = 0
    assert solvers.against_anchor(bench, points, [*lines, other.scheduler], 100) == [*found, fresh[1]]
    assert "dpmpp-2m:spacing=trailing is not held against the anchor" in capsys.readouterr().err


def test_a_file_of_something_else_does_not_stand(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve, path = script("measured").Curve, tmp_path / "solvers.json"
    assert curve.before(path, bench, 100) is None
    assert capsys.readouterr().err == ""
    for weights, n in ((bench.weights, 50), ("0" * 64, 100)):
        curve.of(bench, n, points=[]).model_copy(update={"weights": weights}).write(path)
        assert curve.before(path, bench, 100) is None
        assert "give another -o" in capsys.readouterr().err
    path.write_text("{}")
    assert curve.before(path, bench, 100) is None
    assert "cannot be read" in capsys.readouterr().err


# -- diffusers on the shipped model ------------------------------------------------------------------------------------


#: diffusers hands tensors to numpy in a way that numpy will not take for ever.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "guidance"),
    [("unipc:spacing=trailing", "1"), ("unipc:spacing=linspace,inner=true", "1.5"),
     ("dpmpp-2m-sde:spacing=trailing", "1"), ("dpmpp-2m:spacing=trailing,variant=heun", "2"),
     ("ddim:spacing=trailing", "1")],
)  # fmt: skip
def test_diffusers_makes_the_same_images_of_the_shipped_weights(scheduler: str, guidance: str, tmp_path: Path) -> None:
    """So a setting that the search found by our solvers is the peer's as well."""
    sampling, peer = script("sampling"), script("peer_sampling")
    setting = sampling.Setting(scheduler=scheduler, steps=5, guidance=guidance)
    given = (default_zoo(), "ddpm.fashion-mnist", tmp_path, 1e6)
    ours, theirs = sampling.Bench(*given), peer.PeerBench(*given, clips=True)
    made = [bench.images(setting, range(4), [0, 3, 5, 8]) for bench in (ours, theirs)]
    # Theirs keeps levels in float32, and the last ones of this schedule are near to pure noise.
    assert float((made[0] - made[1]).abs().mean()) < 2e-3


def test_what_diffusers_lacks_is_named() -> None:
    peer = script("peer_sampling")
    for spec, words in (("churn:spacing=karras", "no churn"), ("ddim:spacing=karras", "no use_karras_sigmas")):
        with pytest.raises(OptionError, match=words):
            peer.their_scheduler(spec, True)


# -- the guidances' curves ---------------------------------------------------------------------------------------------


def test_every_guidance_has_a_curve_or_a_reason(bench: Any) -> None:
    guidance, zoo = script("guidance"), default_zoo()
    shown = " ".join(family.spec for family in guidance.FAMILIES.values()).replace("=", " ").replace(":", " ")
    assert set(zoo.names("guidance")) <= set(shown.replace("+", " ").split()) | guidance.LEFT_OUT.keys()
    for name, strength, setting in guidance.settings(list(guidance.FAMILIES)):
        found = zoo.make("guidance", setting.guidance) if strength is not None else None
        assert name in guidance.FAMILIES
        # UniPC of 10 steps with two evaluations at most, and one of the plain model.
        assert (10 if found is None else 1) <= bench.nfe(setting) <= (10 if found is None else 20)


def test_a_curve_begins_at_the_plain_model_where_its_guidance_nears_it(bench: Any) -> None:
    guidance, sampling = script("guidance"), script("sampling")

    def images(scheduler: str, spec: str) -> torch.Tensor:
        setting = sampling.Setting(scheduler=scheduler, steps=4, guidance=spec)
        return bench.images(setting, range(2), [6, 9])

    plain = {scheduler: images(scheduler, "1") for scheduler in (guidance.WALK, guidance.FIRST_ORDER)}
    for name, family in guidance.FAMILIES.items():
        # Not at 0 and 1 themselves, where a guidance may be left out that acts at every other strength.
        found = [images(family.scheduler, family.spec.format(weak)) for weak in ("1e-4", "0.9999")]
        near = [torch.allclose(made, plain[family.scheduler], atol=5e-3) for made in found]
        assert any(near) == family.plain, name


def test_the_guidance_command_writes_curves_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guidance, page = script("guidance"), script("guidance_page")
    monkeypatch.setattr(guidance, "STEPS", 2)
    arguments = ["-n", "20", "--curves", "cfg; cfgpp, ddim", "--work", str(tmp_path / "work")]
    done = CliRunner().invoke(guidance.main, [*arguments, "-o", str(tmp_path / "g.json")], catch_exceptions=False)
    assert done.exit_code == 0
    control = guidance.Control.model_validate_json((tmp_path / "g.json").read_bytes())
    lines = page.lines(control)
    assert [r.strength for r in lines["cfg"]] == [None, 1.5, 2, 3, 5], "it begins at the plain model"
    assert [r.strength for r in lines["cfgpp, ddim"]] == [0.4, 0.6, 0.8, 1], "no strength of it is the plain model"
    assert "2 steps of unipc" in page.markdown(control)
    assert all(reading.scores.keys() == page.COLUMNS.keys() for reading in control.readings)
    assert (tmp_path / "g.md").read_text() == page.markdown(control)
    assert (tmp_path / "g.svg").read_text() == page.svg(control)
    # The features are elsewhere: readings of the file stand beside a new curve's, with their own dates.
    older = [r.model_copy(update={"made": None}) if r.strength is None else r for r in control.readings]
    control.model_copy(update={"made": "2001-01-01", "readings": tuple(older)}).write(tmp_path / "g.json")
    monkeypatch.setattr(script("sampling"), "BATCH", 20)
    arguments = ["-n", "20", "--curves", "apg", "--work", str(tmp_path / "other")]
    done = CliRunner().invoke(guidance.main, [*arguments, "-o", str(tmp_path / "g.json")], catch_exceptions=False)
    assert done.exit_code == 0
    grown = guidance.Control.model_validate_json((tmp_path / "g.json").read_bytes())
    assert page.lines(grown).keys() == {"cfg", "apg", "cfgpp, ddim"}
    assert grown.plain == ("cfg", "apg")
    before, after = ({r.setting: r for r in each.readings} for each in (control, grown))
    assert all(after[setting].scores == reading.scores for setting, reading in before.items())
    assert {r.made for r in after.values() if r.strength is None} == {"2001-01-01"}
    assert [r.strength for r in page.lines(grown)["apg"]] == [None, 1.5, 2, 3, 5]


# -- the limit and the peer --------------------------------------------------------------------------------------------


def test_the_calls_of_a_network_are_recorded_with_their_shapes() -> None:
    limit = script("limit")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1), torch.nn.Flatten())
    seen = limit.calls_of(lambda: torch.nn.functional.linear(network(torch.zeros(2, 3, 5, 5)), torch.zeros(7, 100)))
    assert Counter(seen) == {
        ("convolution", ((2, 3, 5, 5), (4, 3, 3, 3)), ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)): 1,
        ("convolution", ((2, 4, 5, 5), (4, 4, 1, 1)), ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)): 1,
        ("product", ((2, 100), (100, 7)), ()): 1,
    }
    for signature in seen:
        shapes = {tuple(call().shape) for call in limit.candidates(signature)}
        assert shapes == ({(2, 7)} if signature.kind == "product" else {(2, 4, 5, 5)})


def test_the_limit_counts_what_frozen_weights_are_computed_with() -> None:
    limit = script("limit")
    x, tokens, narrow = torch.randn(1, 8, 6, 6), torch.randn(1, 36, 128), torch.randn(1, 4, 36, 8)
    padded = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    doubled = ((2, 2), (1, 1), (1, 1), True, (0, 0), 1)
    cases = [
        (Conv2d(8, 4, 3, padding=1), (x,), ("convolution", ((1, 8, 6, 6), (4, 8, 3, 3)), padded)),
        (Conv2d(8, 4, 1), (x.contiguous(memory_format=torch.channels_last),), ("product", ((36, 8), (8, 4)), ())),
        (Linear(128, 512), (tokens,), ("product", ((36, 128), (128, 512)), ())),
        (Upsample(8), (x, ()), ("convolution", ((1, 8, 6, 6), (8, 8, 4, 4)), doubled)),
    ]
    for layer, given, wanted in cases:
        layer.requires_grad_(False)
        (found,) = limit.calls_of(lambda layer=layer, given=given: layer(*given))
        assert found == wanted
        with torch.inference_mode():
            made = [call() for call in limit.candidates(found)]
        assert len({tuple(each.shape) for each in made}) == 1
    written = limit.calls_of(lambda: attention(narrow, narrow, narrow, torch.float32))
    assert sorted(signature.kind for signature in written) == ["product", "product", "softmax"]
    wide = limit.calls_of(lambda: attention(*[torch.randn(1, 2, 9, 32)] * 3, torch.float32))
    assert wide == [("attention", ((1, 2, 9, 32),) * 3, ())]


def test_the_limit_is_a_run_of_all_calls_each_in_its_best_way(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = script("limit")
    made: list[str] = []

    def ways(signature: Any) -> list[Any]:
        return [lambda: made.append(f"slow {signature.kind}"), lambda: made.append(signature.kind)]

    def quickest(calls: Any, clock: str, seconds: float) -> list[float]:
        return [10.0, 1.0]

    monkeypatch.setattr(limit, "candidates", ways)
    monkeypatch.setattr(limit, "quickest", quickest)
    layers = [torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(75, 2))
    limit.arithmetic(lambda: network(torch.zeros(1, 3, 5, 5)))()
    assert made == ["convolution", "convolution", "product"]


def test_the_quickest_repetition_of_each_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, seconds = script("limit"), iter([0, 3, 0, 1, 0, 2, 0, 5, 0, 2, 0, 4, *[0, 9] * 4])
    monkeypatch.setitem(limit.CLOCKS, "wall", lambda: next(seconds))
    assert limit.quickest([int, float], "wall", 0.0) == [2, 1]


def test_a_walks_time_in_the_network() -> None:
    speed, ticks = script("speed"), iter(range(99))

    class Network(torch.nn.Module):
        def forward(self, x: int) -> int:
            return x + 1

        def foresee(self) -> str:
            return "told"

    network = Network()
    for compiled in (None, network.forward):
        network._compiled_call_impl = compiled
        with speed.watched(network, lambda: next(ticks)) as spent:
            assert (network(1), network.foresee(), network(2)) == (2, "told", 3)
        assert spent == [1, 1, 1]
        assert (network(1), network.foresee(), network._compiled_call_impl) == (2, "told", compiled)
    assert len(spent) == 3, "nobody looks on any more"
    share = speed.shared(lambda: network(1), network, 7, "wall")
    assert 0 < share.low <= share.value <= share.high < 1


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


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_steps_of_a_run_and_of_the_plain_loop_are_timed_in_turns(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    training, out = script("training"), tmp_path / "speed.json"
    arguments = ["ddpm.tiny", "--batch", "4", "--precision", "fp32", "--repetitions", "3", "-o", str(out)]
    done = CliRunner().invoke(training.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    (row,) = training.Steps.model_validate_json(out.read_bytes()).rows
    assert (row.recipe, row.precision, row.batch) == ("ddpm.tiny", "fp32", 4)
    assert len(row.speedup.first) == 3


def test_only_a_recipe_that_diffusers_can_follow_is_timed() -> None:
    pytest.importorskip("diffusers")
    done = CliRunner().invoke(script("training").main, ["dcgan.fashion-mnist"])
    assert done.exit_code == 2
    assert "ddpm.fashion-mnist" in done.output


# -- loading -----------------------------------------------------------------------------------------------------------


def test_both_libraries_load_one_folder_and_are_measured_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    loading = script("loading")
    small = {"block_out_channels": [32, 64], "down_block_types": ["DownBlock2D"] * 2, "sample_size": 32}
    monkeypatch.setattr(loading, "CONFIG", {**loading.CONFIG, **small, "up_block_types": ["UpBlock2D"] * 2})
    loading.write_pipeline(tmp_path / "pipeline")
    found = [loading.measure(kind, str(tmp_path / "pipeline"), 0.0) for kind in loading.KINDS]
    assert found[0].keys() == found[1].keys() == {*loading.TIMES, "peak"}
    assert [loading.imported(kind, str(tmp_path / "pipeline")) for kind in loading.KINDS] == [[], []]
    assert all(value > 0 for one in found for value in one.values())
