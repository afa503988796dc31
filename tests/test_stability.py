"""Stability: runs that are steady, diverge, collapse and fail on purpose are told apart; a study resumes as one."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from toy_family import Toys, toy_recipe, toy_zoo

from genzoo.cli.stability import stability
from genzoo.errors import OptionError, ResultsError, UnknownName
from genzoo.milestones import Milestone, measured, read_log, thinned
from genzoo.recipe_file import read_recipe
from genzoo.registry import Zoo, default_zoo
from genzoo.results import Stability, read_record
from genzoo.runs import Family, Run, spread
from genzoo.stability import Request, Study, collapse

WAYS = ["steady", "diverges", "copies", "drops", "fails"]


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return toy_zoo()


def study(zoo: Zoo, out: Path, ways: list[str] = WAYS, seeds: tuple[int, ...] = (0, 1, 2), **given) -> Study:
    return Study(zoo, Request([toy_recipe(way) for way in ways], seeds, out, **given))


@pytest.fixture(scope="module")
def whole(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "whole"
    for _ in study(zoo, out).run():
        pass
    return out


def record(out: Path) -> Stability:
    found = read_record(out / "stability.json")
    assert isinstance(found, Stability)
    return found


def timeless(found: Stability) -> list[dict]:
    """The families without what differs from one machine's minute to the next."""
    families = [family.model_dump() for family in found.families]
    for family in families:
        for run in family["runs"]:
            run["milestones"] = [{**milestone, "seconds": 0} for milestone in run["milestones"]]
    return families


# -- what became of the runs -------------------------------------------------------------------------------------------


def test_runs_are_told_apart(whole: Path) -> None:
    families = {family.name.partition(".")[2]: family for family in record(whole).families}
    assert list(families) == WAYS
    for way, wanted in {
        "diverges": "times as far from the data",
        "copies": "variety within a class fell to 0%",
        "drops": "1 of the data's classes dropped out",
        "fails": "failed: loss is nan at step 7",
    }.items():
        assert families[way].collapsed().hits == 3, way
        assert all(wanted in (run.collapsed or "") for run in families[way].runs), [
            r.collapsed for r in families[way].runs
        ]
    steady = families["steady"]
    assert steady.collapsed().hits == 0
    divergence, final = steady.divergence(), steady.final()
    assert divergence is not None
    assert divergence.highest < 1.5
    assert final is not None
    assert final.highest < 2 * record(whole).floor["frechet"] + 0.1
    assert steady.parameters == 2 * 64 + 1


def test_the_runs_are_recorded_as_they_went(whole: Path) -> None:
    families = record(whole).families
    for run in families[0].runs:
        assert [step for step, _ in run.curve()] == [3, 6, 9, 12]
        assert [m.step for m in run.milestones if m.losses] == [2, 4, 6, 8, 10, 12]
        assert all({"frechet", "label-accuracy", "dropped-classes", "class-diversity"} <= set(m.scores)
                   for m in run.milestones if m.scores)  # fmt: skip
    assert families[0].runs[0].curve() != families[0].runs[1].curve(), "seeds differ"
    failed = families[-1].runs[0]
    assert [step for step, _ in failed.curve()] == [3, 6]
    assert (failed.final(), failed.divergence()) == (None, None)
    assert failed.best() is not None
    assert families[-1].final() is None


def test_the_card_of_a_run_holds_its_measured_curve(whole: Path) -> None:
    card = yaml.safe_load((whole / "runs" / "bell.steady" / "seed-0" / "model" / "card.yaml").read_text())
    run = record(whole).families[0].runs[0]
    assert card["training"]["curve"] == [m.model_dump(exclude_defaults=True) for m in measured(run.milestones)]
    assert [m["step"] for m in card["training"]["curve"]] == [3, 6, 9, 12]


def test_collapse_judges_by_what_was_measured() -> None:
    def ended(*scores: dict[str, float], failed: str | None = None) -> Run:
        points = tuple(Milestone(step=i + 1, seconds=i, scores=s) for i, s in enumerate(scores))
        return Run(seed=0, milestones=points, failed=failed)

    floor = {"class-diversity": 80.0}
    assert collapse(ended({"frechet": 2.0}, {"frechet": 4.0}), floor) is None
    assert (
        collapse(ended({"frechet": 2.0}, {"frechet": 4.1}), floor)
        == "it ended 2.05 times as far from the data as at its best"
    )
    assert collapse(ended({"class-diversity": 20.0}), floor) is None
    assert collapse(ended({"class-diversity": 19.0}), floor) == "variety within a class fell to 24% of the data's"
    assert collapse(ended({"class-diversity": 19.0}), {}) is None, "without real images nothing is known"
    assert collapse(ended({"dropped-classes": 2.0}, {"dropped-classes": 0.0}), floor) is None, "it came back"
    assert (
        collapse(ended({"dropped-classes": 0.0}, {"dropped-classes": 2.0}), floor)
        == "2 of the data's classes dropped out"
    )
    assert collapse(ended(failed="loss is inf"), floor) == "failed: loss is inf"
    assert collapse(ended(), floor) is None


# -- a study is resumed, or refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [5, 14, 27])
def test_a_study_that_is_stopped_goes_on_to_the_same_record(zoo: Zoo, tmp_path: Path, stop: int) -> None:
    for _ in study(zoo, tmp_path / "once", ["steady", "fails"], (0, 1)).run():
        pass
    for event in study(zoo, tmp_path / "twice", ["steady", "fails"], (0, 1)).run():
        if event.done == stop:
            break
    resumed = study(zoo, tmp_path / "twice", ["steady", "fails"], (0, 1), resume=True)
    events = list(resumed.run())
    assert events[-1].done == events[-1].total == 48
    assert timeless(record(tmp_path / "twice")) == timeless(record(tmp_path / "once")) == timeless(resumed.record)


def test_further_seeds_and_families_join(zoo: Zoo, tmp_path: Path) -> None:
    for ways, seeds in (["steady"], (1,)), (["steady"], (0, 1)), (["drops"], (0,)):
        for _ in study(zoo, tmp_path, ways, seeds, resume=True).run():
            pass
    assert {f.name: [r.seed for r in f.runs] for f in record(tmp_path).families} == {
        "bell.steady": [0, 1],
        "bell.drops": [0],
    }


def test_what_is_not_alike_is_refused_before_anything_is_trained(zoo: Zoo, tmp_path: Path, whole: Path) -> None:
    def start(*recipes, seeds=(0,), out=tmp_path / "none", resume=False) -> Study:
        return Study(zoo, Request(recipes, seeds, out, resume=resume))

    with pytest.raises(ResultsError, match="--resume"):
        start(toy_recipe(), out=whole)
    with pytest.raises(ResultsError, match=r"bell\.steady was trained by another recipe"):
        start(toy_recipe(steps=9), out=whole, resume=True)
    with pytest.raises(ResultsError, match="not measured alike"):
        start(toy_recipe(measure={"extractor": "eye", "every": 3, "n": 100}), out=whole, resume=True)
    with pytest.raises(OptionError, match="no preset"):
        start()
    with pytest.raises(OptionError, match="key measure"):
        start(toy_recipe(measure=None))
    with pytest.raises(OptionError, match="same name"):
        start(toy_recipe(), toy_recipe(steps=9))
    with pytest.raises(OptionError, match="differ in data"):
        start(toy_recipe(), toy_recipe("drops", measure={"extractor": "eye", "every": 3, "n": 100}))
    for seeds in (), (2**32,):
        with pytest.raises(OptionError, match="below 4294967296"):
            start(toy_recipe(), seeds=seeds)
    with pytest.raises(UnknownName, match="eye"):
        start(toy_recipe(measure={"extractor": "eyes", "every": 3, "n": 100}))
    assert not (tmp_path / "none").exists()


# -- numbers -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_a_curve_in_numbers(values: list[float]) -> None:
    run = Run(
        seed=0, milestones=tuple(Milestone(step=i, seconds=i, scores={"frechet": v}) for i, v in enumerate(values))
    )
    assert run.best() == min(values)
    assert run.final() == values[-1]
    assert run.divergence() == values[-1] / min(values)
    found = spread(values)
    assert found is not None
    assert (found.lowest, found.highest) == (min(values), max(values))
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values) if len(values) > 1 else 0)
    thin = thinned(run.milestones, most=7)
    assert len(thin) <= 7
    assert thin[-1] == run.milestones[-1]
    steps = [m.step for m in thin]
    assert len({later - earlier for earlier, later in pairwise(steps)}) <= 1, "evenly spaced"


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (1, 3), (3, 3), (4, 10)])
def test_the_collapsed_share_has_the_wilson_interval_of_scipy(hits: int, count: int) -> None:
    runs = tuple(Run(seed=i, collapsed="it did" if i < hits else None) for i in range(count))
    share = Family(name="f", recipe="r", steps=1, batch=1, runs=runs).collapsed()
    oracle = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (share.hits, share.count) == (hits, count)
    assert (share.low, share.high) == pytest.approx((oracle.low, oracle.high))


def test_a_log_is_read_up_to_where_a_kill_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_log(path) == ()
    lines = [
        {"step": 2, "loss": 0.5, "images_per_second": 9.0, "seconds": 1.5},
        {"step": 2, "frechet": 3.0, "seconds": 1.5},
        {"step": 4, "loss": 0.25, "images_per_second": 9.0, "seconds": 2.5},
        {"step": 5, "frechet": 2.123456},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "fre')
    found = read_log(path)
    assert [(m.step, m.seconds, m.losses, m.scores) for m in found] == [
        (2, 1.5, {"loss": 0.5}, {"frechet": 3.0}),
        (4, 2.5, {"loss": 0.25}, {}),
        (5, 2.5, {}, {"frechet": 2.123456}),
    ]
    assert measured(found)[-1] == Milestone(step=5, seconds=2.5, scores={"frechet": 2.1235})


# -- presets and the command -------------------------------------------------------------------------------------------


def test_the_built_in_presets_are_measured_alike() -> None:
    zoo = default_zoo()
    files = {name: read_recipe(path) for name, path in zoo.presets.items()}
    assert {"ddpm.tiny", "dcgan.tiny", "stylegan-lite.tiny"} <= set(files)
    assert all(file.name == name for name, file in files.items())
    assert (
        len({(f.data.model_dump_json(), f.measure and (f.measure.extractor, f.measure.n)) for f in files.values()}) == 1
    )
    for file in files.values():
        assert file.measure is not None
        assert file.steps // file.measure.every == 8
        assert file.steps % file.measure.every == 0
        zoo.find("recipe", file.recipe).Config.model_validate_json(json.dumps(file.settings), strict=True)


def test_a_preset_is_registered_by_name_and_file(tmp_path: Path) -> None:
    class Plugin(Toys):
        def __init__(self, name: str, path: Path) -> None:
            self.preset = name, path

        def register(self, zoo) -> None:
            zoo.preset(*self.preset)

    Plugin.register.genzoo_impl = Toys.register.genzoo_impl  # type: ignore[attr-defined]
    path = tmp_path / "tiny.yaml"
    path.write_text("")
    zoo = Zoo()
    assert zoo.add(lambda: Plugin("toy.tiny", path), name="a")
    assert zoo.presets == {"toy.tiny": path}
    assert zoo.plugins["a"].brings == (("preset", "toy.tiny"),)
    for name, file, cause in (
        ("toy.tiny", path, "exists already"),
        ("Toy", path, "family.tag"),
        ("toy.other", tmp_path / "missing.yaml", "is not there"),
    ):
        assert not zoo.add(lambda given=(name, file): Plugin(*given), name=f"b {cause}")
        assert cause in zoo.broken[f"b {cause}"].cause
    assert list(zoo.presets) == ["toy.tiny"]


def test_the_command_trains_records_and_reports(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("genzoo.cli.stability", "genzoo.cli.train"):
        monkeypatch.setattr(f"{module}.default_zoo", lambda: zoo)
    recipe = tmp_path / "drops.yaml"
    recipe.write_text(yaml.safe_dump(toy_recipe("drops").model_dump(mode="json")))
    arguments = [str(recipe), "--seeds", "0,1", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(stability, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "bell.drops" in done.output
    assert (tmp_path / "out" / "report.html").exists()
    assert [run.seed for run in record(tmp_path / "out").families[0].runs] == [0, 1]
    with pytest.raises(ResultsError, match="--resume"):
        CliRunner().invoke(stability, arguments, catch_exceptions=False)
    with pytest.raises(UnknownName, match=r"did you mean 'ddpm\.tiny'"):
        CliRunner().invoke(stability, ["ddpm.tin", "-o", str(tmp_path / "x")], catch_exceptions=False)
