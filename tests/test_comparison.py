"""A comparison holds all models to the same, and one that fails is a row, not the end."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny import card, model_folder
from torch import Tensor

from genzoo import cli, comparison, evaluate
from genzoo.errors import GenzooError, OptionError, ResultsError, UnknownName
from genzoo.frozen import Frozen
from genzoo.generator import Generator, Options
from genzoo.hookspecs import hookimpl
from genzoo.metric import Estimate, Features, Metric, Reference
from genzoo.registry import Registrar, Zoo, default_zoo
from genzoo.results import ModelResult, Results, read_results
from genzoo.subject import CONTROL_METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from genzoo.noise import Noise


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("tiny")))


def compare(models: Sequence[str], zoo: Zoo | None = None, **changes: Any) -> Results:
    given = {
        "seeds": range(40), "dataset": "fashion-mnist", "metrics": CONTROL_METRICS, "speed": False, "control_n": 20,
        **changes,
    }  # fmt: skip
    run = comparison.Comparison(zoo or default_zoo(), comparison.Request(models=models, **given))
    assert all(0 <= event.done <= event.total for event in run.run())
    return run.results()


def check_alike(one: ModelResult, other: ModelResult, tolerance: float = 1e-9) -> None:
    """The same scores. The last bits of a matrix product depend on where its operands lie in memory."""
    assert [score.metric for score in one.scores] == [score.metric for score in other.scores]
    for a, b in zip(one.scores, other.scores, strict=True):
        for key in ("value", "low", "high", "repeats", "by_class"):
            assert getattr(a, key) == pytest.approx(getattr(b, key), abs=tolerance), (a.metric, key)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_comparison_has_a_row_a_model_and_the_floor(tiny: str) -> None:
    results = compare([tiny], metrics=None)
    model, floor = results.models
    assert model.name == "tiny.dcgan"
    assert {"frechet", "recall", "label-accuracy"} <= {score.metric for score in model.scores}
    assert floor.kind == "data"
    assert floor.score("frechet").value < model.score("frechet").value
    assert model.sheet is not None
    assert model.sheet.seeds == tuple(range(40))
    assert len(model.sheet.labels) == 10
    assert (results.n, results.repeats, results.seeds) == (40, 1, "0-39")
    assert results.classes[0] == "T-shirt/top"
    assert len(results.classes) == 10


def test_speed_is_measured_in_a_fresh_process(tiny: str) -> None:
    speed = compare([tiny], speed=True, quick=True).models[0].speed
    assert speed is not None
    assert speed.nfe == 1
    assert speed.flops is not None
    assert speed.flops > 0
    assert speed.images_per_second > 0
    assert 1 <= speed.batch <= 40
    assert min(speed.load_seconds, speed.first_seconds, *speed.latency, *speed.batch_seconds) > 0


def test_the_same_numbers_again_in_any_company_and_batch(tiny: str) -> None:
    alone, twice, sevens = compare([tiny]), compare([tiny, tiny]), compare([tiny], batch=7)
    for model in twice.models[:2]:
        check_alike(alone.models[0], model)
    # Pixels may differ by a level where another batch rounds a sum otherwise; features, hardly.
    check_alike(alone.models[0], sevens.models[0], 1e-2)


def test_results_round_trip_through_a_file(tiny: str, tmp_path: Path) -> None:
    results = compare([tiny], repeats=2, metrics=None)
    results.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "format None is not read here; give a results.json of genzoo compare"),
        ('{"format": "genzoo.results/9"}', r"/9' is of a newer genzoo .* 'genzoo.results/1'; update genzoo$"),
        ('{"format": "genzoo.results/x"}', "reads 'genzoo.results/1'; measure again with genzoo compare -o"),
        ('{"format": "genzoo.stability/0"}', "reads 'genzoo.stability/1'; measure again with genzoo stability -o"),
        pytest.param(f'{{"format": "{"x" * 5000}"}}', r"format 'x{77}\.\.\.' is not read here", id="long"),
        ('{"format": "genzoo.results/1", "n": -1}', "made"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=match) as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


def test_seeds_in_words() -> None:
    assert comparison.seeds_in_words(range(3, 9)) == "3-8"
    assert comparison.seeds_in_words([5]) == "5"
    assert comparison.seeds_in_words([1, 3, 5]) == "1,3,5"


# -- repetitions -------------------------------------------------------------------------------------------------------


def test_repetitions_are_single_runs_over_other_seeds(tiny: str) -> None:
    """Value and repeats from the single runs; the interval's half-widths in quadrature, divided by their number."""
    names = ["frechet", "recall", "label-accuracy"]
    whole = compare([tiny], seeds=range(120), repeats=3, metrics=names)
    singles = [compare([tiny], seeds=range(i, i + 40), metrics=names).models[0] for i in (0, 40, 80)]
    assert (whole.n, whole.repeats, whole.seeds) == (40, 3, "0-119")
    for score in whole.models[0].scores:
        parts = [single.score(score.metric) for single in singles]
        assert score.repeats == pytest.approx([part.value for part in parts], abs=1e-2)
        assert score.value == pytest.approx(statistics.fmean(score.repeats))
        widths = [part.value - part.low for part in parts]
        assert score.value - score.low == pytest.approx(sum(w**2 for w in widths) ** 0.5 / 3, abs=1e-2)
        assert score.n == 40


def test_a_pooled_metric_sees_all_repetitions_at_once(tiny: str) -> None:
    zoo = zoo_with(metrics={"count": Count})
    (score,) = compare([tiny], zoo, seeds=range(120), repeats=3, metrics=["count"]).models[0].scores
    assert (score.value, score.n, score.repeats) == (120, 120, ())


def test_the_floor_is_as_many_disjoint_training_images(tiny: str) -> None:
    results = compare([tiny], seeds=range(120), repeats=3, metrics=["frechet", "recall"])
    zoo = default_zoo()
    extractor = evaluate.find_extractor(zoo, None, "fashion-mnist")
    reference = evaluate.load_reference(zoo, extractor, "fashion-mnist")
    for name in ("frechet", "recall"):
        blocks = [reference.train[i : i + 40] for i in (0, 40, 80)]
        expected = [zoo.make("metric", name)(block, reference).value for block in blocks]
        assert results.models[-1].score(name).repeats == pytest.approx(expected)


def test_the_floor_of_a_metric_without_a_reference_is_of_held_out_images(tiny: str) -> None:
    """A classifier recognises the images that it learned from too often; the others are held against test images."""
    zoo = default_zoo()
    extractor = evaluate.find_extractor(zoo, None, "fashion-mnist")
    reference = evaluate.load_reference(zoo, extractor, "fashion-mnist")
    found = compare([tiny], seeds=range(120), repeats=3, metrics=["label-accuracy", "frechet", "vendi"]).models[-1]
    assert [score.metric for score in found.scores] == ["label-accuracy", "frechet", "vendi"]
    for name, real in (("label-accuracy", reference), ("vendi", reference), ("frechet", reference.train)):
        expected = [zoo.make("metric", name)(real[i : i + 40], reference).value for i in (0, 40, 80)]
        assert found.score(name).repeats == pytest.approx(expected), name


def test_the_floor_has_no_more_repetitions_than_there_are_held_out_images(tiny: str) -> None:
    """Never are training images taken in their place; where there are too few for one repetition, there is no score."""
    zoo = default_zoo()
    names = ["vendi", "frechet"]
    request = comparison.Request([tiny], range(120), "fashion-mnist", repeats=3, metrics=names, speed=False)
    real = comparison.Comparison(zoo, request).evaluator.reference
    for count, times in ((119, 2), (79, 1), (39, 0)):
        run = comparison.Comparison(zoo, request)
        few = dataclasses.replace(real, vectors=real.vectors[:count], logits=None, labels=None)
        run.evaluator = evaluate.Evaluator(run.extractor, few, run.metrics)
        for _ in run.run():
            if run.floor is not None:
                break
        assert f"images of the test split, of which there are {count}" in run.floor.summary
        assert len(run.floor.score("frechet").repeats) == 3
        score = run.floor.score("vendi")
        blocks = [few.vectors[i * 40 : (i + 1) * 40] for i in range(times)]
        expected = [zoo.make("metric", "vendi")(Features(block), few).value for block in blocks]
        found = [] if score is None else list(score.repeats) or [score.value]
        assert found == pytest.approx(expected)


def test_the_floor_takes_what_there_is_and_never_sees_itself(tiny: str) -> None:
    def floor(rows: int) -> list[ModelResult]:
        request = comparison.Request([tiny], range(120), "fashion-mnist", repeats=3, metrics=["unseen"], speed=False)
        run = comparison.Comparison(zoo_with(metrics={"unseen": Unseen}), request)
        real = Reference(torch.randn(50, 128), train=Features(torch.randn(rows, 128)))
        run.evaluator = evaluate.Evaluator(run.extractor, real, run.metrics)
        list(run.run())
        return list(run.results().models[1:])

    assert floor(39) == []
    (row,) = floor(100)
    assert row.summary.startswith("2 times 40 training images")
    # The other twenty, and none of the eighty that are judged.
    assert row.score("unseen").repeats == (20, 20)
    (row,) = floor(200)
    assert row.score("unseen").repeats == (80, 80, 80)


class Count(Metric):
    """How many images it was shown."""

    title = "Count"
    paper = "none"
    better = "higher"
    pooled = True

    def __call__(self, fake: Features, reference: Features) -> Estimate:
        return Estimate(value=len(fake), n=len(fake))


class Unseen(Count):
    """How many training images there are, if none of them is among the images."""

    pooled = False

    def __call__(self, fake: Features, reference: Any) -> Estimate | None:
        assert bool((torch.cdist(fake.vectors, reference.train.vectors) > 0).all())
        return Estimate(value=len(reference.train), n=len(fake))


# -- control -----------------------------------------------------------------------------------------------------------


class DialOptions(Options):
    """A brightness, which decides what is seen."""

    brightness: float = 1.0


class Dial(Generator):
    """A square as bright as it is asked to be, at a place that its class decides; says what it made."""

    Config = Frozen
    Options = DialOptions
    control = {"brightness": (1.0, 0.25)}
    num_classes = 10
    made: list[tuple[float, int]] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 28, 28

    def sample(self, noise: Noise, options: DialOptions) -> Iterator[Tensor]:
        self.made.append((options.brightness, len(noise)))
        images = noise.normal(1, 28, 28) / 10 - 1
        for image, label in zip(images, options.labels, strict=True):
            image[0, 2 * label : 2 * label + 8, 10:18] = options.brightness
        yield images


class Picky(Dial):
    """Takes no brightness but its own."""

    def sample(self, noise: Noise, options: DialOptions) -> Iterator[Tensor]:
        if options.brightness != 1:
            raise OptionError("this one has no brightness")
        yield from super().sample(noise, options)


class Boastful(Dial):
    """Speaks of an option that it has not."""

    control = {"contrast": (1.0,)}


class Translator(Dial):
    """Changes given images."""

    takes_images = True


class Broken(Dial):
    """Fails."""

    def sample(self, noise: Noise, options: DialOptions) -> Iterator[Tensor]:
        raise KeyError("x")
        yield torch.zeros(1)


FAMILIES: dict[str, type[Generator]] = {
    "dial": Dial,
    "picky": Picky,
    "boastful": Boastful,
    "translator": Translator,
    "broken": Broken,
}


def zoo_with(metrics: dict[str, type[Metric]] | None = None) -> Zoo:
    """Everything that is installed, and a stranger's plugin."""

    class Plugin:
        @hookimpl
        def register(self, zoo: Registrar) -> None:
            zoo.generator("absent", "no_such_module:Absent")
            zoo.card({**card("absent.one", generator="absent", config={})})
            for name, family in FAMILIES.items():
                zoo.generator(name, family)
                zoo.card({**card(f"{name}.one", generator=name, config={}), "summary": f"A {name}"})
            for name, metric in (metrics or {}).items():
                zoo.metric(name, metric)

    zoo = Zoo.discover()
    assert zoo.add(Plugin, name="stranger"), zoo.broken
    return zoo


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return zoo_with()


def test_a_strangers_model_has_the_curve_that_it_declares(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dial, "made", [])
    results = compare(["dial.one"], zoo, seeds=range(80), repeats=2)
    row = results.models[0]
    assert row.failed is None
    (sweep,) = row.sweeps
    assert (sweep.option, sweep.n) == ("brightness", 20)
    assert [point.value for point in sweep.points] == [0.25, 1.0]
    for point in sweep.points:
        assert [score.metric for score in point.scores] == [s.metric for s in row.scores if s.metric in CONTROL_METRICS]
        assert {score.n for score in point.scores} == {20}
    # Each point is what a comparison at that value measures; the one at its own value was not generated twice.
    assert Dial.made == [(1.0, 64), (1.0, 16), (0.25, 20)]
    for point in sweep.points:
        there = compare(
            ["dial.one"], zoo, seeds=range(20), options={"brightness": point.value}, metrics=CONTROL_METRICS
        )
        expected = {score.metric: score.value for score in there.models[0].scores}
        assert {score.metric: score.value for score in point.scores} == pytest.approx(expected)


def test_curves_can_be_left_out(zoo: Zoo, tiny: str) -> None:
    assert compare(["dial.one"], zoo, control_n=0).models[0].sweeps == ()
    assert compare(["dial.one"], zoo, metrics=["precision"]).models[0].sweeps == ()
    assert compare([tiny]).models[0].sweeps == (), "its family declares none"


def test_a_model_that_has_no_use_for_its_familys_option_has_no_curve(zoo: Zoo) -> None:
    row = compare(["picky.one"], zoo).models[0]
    assert row.failed is None
    assert row.sweeps == ()


def test_a_family_that_declares_what_it_has_not_is_told_so(zoo: Zoo) -> None:
    failed = compare(["boastful.one", "dial.one"], zoo).models[0].failed
    assert failed is not None
    assert failed.startswith("no option named 'contrast'")


@pytest.mark.parametrize("name", [card.name for card in default_zoo().cards()])
def test_the_shipped_families_take_the_values_of_their_curves(name: str) -> None:
    found = default_zoo().card(name)
    family = default_zoo().find("generator", found.generator)
    for option, values in family.control.items():
        for value in values:
            assert isinstance(value, float)
            assert getattr(comparison.read_options(family, found, {option: value}), option) == value


# -- neighbours --------------------------------------------------------------------------------------------------------


class Copyist(Dial):
    """Repeats training images: seed s makes training image 100 + s, darkened by s levels."""

    def sample(self, noise: Noise, options: DialOptions) -> Iterator[Tensor]:
        images = default_zoo().make("dataset", "fashion-mnist").load("train")
        rows = torch.tensor([100 + seed for seed in noise.seeds])
        darker = 2 * torch.tensor(noise.seeds)[:, None, None, None] / 255
        yield images.floats(rows) - darker


def test_a_copyist_is_shown_above_what_it_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    try:
        images = default_zoo().make("dataset", "fashion-mnist").load("train")
    except GenzooError:
        pytest.skip("Fashion-MNIST is not installed")
    monkeypatch.setitem(FAMILIES, "dial", Copyist)
    found = compare(["dial.one"], zoo_with(), metrics=["frechet"], control_n=0).models[0].neighbours
    assert found is not None
    assert found.searched == 10_000
    assert found.seeds[0] == 0
    assert found.distances[0] == pytest.approx(0, abs=0.05)
    assert list(found.distances) == sorted(found.distances)
    with Image.open(io.BytesIO(base64.b64decode(found.png))) as picture:
        below = np.asarray(picture)[29:, :28]
    assert np.array_equal(below, images.pixels[100, 0].numpy())


def test_without_the_data_set_there_are_no_pictures_of_it(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_FASHION_MNIST", "/nowhere")
    results = compare([tiny], metrics=["frechet"])
    assert results.models[0].neighbours is None
    assert results.models[-1].kind == "data", "its features ship with the extractor"


# -- mistakes and faults -----------------------------------------------------------------------------------------------


def test_mistakes_are_told_before_anything_is_computed(tiny: str, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "batches", None)  # nothing is generated
    for error, match, models, changes in (
        (UnknownName, "no model named", [tiny, "ddpm.fashion-mnits"], {}),
        (UnknownName, "did you mean 'frechet'", [tiny], {"metrics": ["frechett"]}),
        (UnknownName, "no scheduler named 'dmid'", ["ddpm.fashion-mnist"], {"options": {"scheduler": "dmid"}}),
        (OptionError, "none of these models has an option 'steps'", [tiny], {"options": {"steps": 3}}),
        (OptionError, "options of ddpm.fashion-mnist: steps", ["ddpm.fashion-mnist"], {"options": {"steps": -3}}),
        (OptionError, "leave labels out", [tiny], {"options": {"labels": 3}}),
        (OptionError, "too few", [tiny], {"seeds": range(5)}),
        (OptionError, "too few", [tiny], {"seeds": range(40), "repeats": 4}),
        (OptionError, "40 seeds cannot be cut into 3", [tiny], {"repeats": 3}),
        (OptionError, "give 20 or more, or 0", [tiny], {"control_n": 3}),
        (OptionError, "needs at least 102 images", [tiny], {"metrics": ["precision:k=50"]}),
        (OptionError, "no model was trained on 'cats'", [], {"dataset": "cats"}),
        (OptionError, "translator.one changes given images; leave it out", [tiny, "translator.one"], {}),
    ):
        with pytest.raises(error, match=match):
            compare(models, zoo, **changes)


def test_a_translator_is_not_compared_by_default(zoo: Zoo) -> None:
    names = comparison.fitting_models(zoo, "fashion-mnist")
    assert {"dial.one", "broken.one", "ddpm.fashion-mnist"} <= set(names)
    assert "translator.one" not in names


def test_a_model_that_fails_is_a_row_that_says_why(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genzoo_plugins.dcgan.network import Network

    bad = str(model_folder(tmp_path / "bad", name="bad.dcgan"))
    real, calls = Network.forward, []

    def broken(self, z, labels=None):  # type: ignore[no-untyped-def]
        calls.append(1)
        images = real(self, z, labels)
        return images * float("nan") if len(calls) == 1 else images

    monkeypatch.setattr(Network, "forward", broken)
    results = compare([bad, tiny])
    assert results.models[0].failed == "bad.dcgan made images that hold NaN or infinity"
    assert results.models[1].failed is None
    assert results.models[1].scores


def test_a_model_whose_plugin_cannot_be_loaded_is_a_row_as_well(zoo: Zoo) -> None:
    results = compare(["absent.one", "dial.one"], zoo, options={"brightness": 0.5, "of_absent": 1}, control_n=0)
    absent, dial = results.models[:2]
    assert absent.failed is not None
    assert "generator 'absent' cannot be loaded" in absent.failed
    assert dial.options == {"brightness": 0.5}


def test_where_every_model_fails_there_is_no_report(zoo: Zoo) -> None:
    assert compare(["broken.one", "dial.one"], zoo).models[0].failed == "KeyError: 'x'"
    with pytest.raises(GenzooError, match=r"no model could be measured; broken\.one: KeyError: 'x'"):
        compare(["broken.one"], zoo)


class Faulty(Count):
    """Fails."""

    def __call__(self, fake: Features, reference: Features) -> Estimate:
        raise ZeroDivisionError


def test_a_metric_that_fails_is_named_before_anything_is_generated(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "batches", None)
    with pytest.raises(GenzooError, match=r"metric faulty failed: ZeroDivisionError: no message; choose others"):
        compare([tiny], zoo_with(metrics={"faulty": Faulty}), metrics=["faulty"])


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[comparison.Request]:
    """The requests that commands make; none is run."""
    requests: list[comparison.Request] = []

    def stop(zoo: Zoo, request: comparison.Request) -> None:
        requests.append(request)
        raise OptionError("enough")

    monkeypatch.setattr(comparison, "Comparison", stop)
    return requests


@pytest.mark.parametrize(
    ("arguments", "n", "repeats", "control_n", "first"),
    [
        ([], 1000, 3, 200, 0),
        (["--quick"], 200, 1, 0, 0),
        (["--quick", "-n", "50", "--control-n", "20"], 50, 1, 20, 0),
        (["-n", "100", "--repeats", "2"], 100, 2, 200, 0),
        (["--seeds", "5-104"], 100, 1, 200, 5),
        (["--seeds", "5-104", "--repeats", "4"], 25, 4, 200, 5),
    ],
)
def test_how_much_is_measured(
    asked: list[comparison.Request], arguments: list[str], n: int, repeats: int, control_n: int, first: int
) -> None:
    assert cli.run(["compare", *arguments]) == 2
    (request,) = asked
    assert (request.n, request.repeats, request.control_n) == (n, repeats, control_n)
    assert request.quick == ("--quick" in arguments)
    assert list(request.seeds) == list(range(first, first + n * repeats))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "30", "--seeds", "0-59"], "--seeds says how many pictures there are; leave -n out"),
        (["--repeats", "0"], "'--repeats': 0 is not in the range"),
        (["--seeds", "0-60", "--repeats", "2"], "61 seeds cannot be cut into 2 repetitions"),
        (["--sort", "frechett"], "did you mean 'frechet'"),
        (["-o", "pyproject.toml/report"], "is no folder that you may write to"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_after_an_interruption_the_report_holds_what_was_measured(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = str(model_folder(tmp_path / "other", name="other.dcgan"))
    real = evaluate.pictures

    def pictures(model: Generator, *rest: Any, **given: Any) -> Iterator[Tensor]:
        if model.card is not None and model.card.name == "other.dcgan":
            raise KeyboardInterrupt
        return real(model, *rest, **given)

    monkeypatch.setattr(evaluate, "pictures", pictures)
    out = tmp_path / "report"
    small = ["-n", "20", "--repeats", "1", "--no-speed", "-o", str(out)]
    assert cli.run(["compare", other, tiny, *small]) == 130
    assert not out.exists(), "nothing was measured"
    assert cli.run(["compare", tiny, other, *small]) == 130
    assert [row.name for row in read_results(out / "results.json").models] == ["tiny.dcgan", "real images"]
