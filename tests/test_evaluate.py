"""Images to scores, and scores of several sets to one."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import model_folder

from genzoo import comparison, evaluate
from genzoo.errors import GenzooError, UnknownName
from genzoo.metric import Estimate, Extractor, Features, Reference
from genzoo.registry import default_zoo


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("tiny")))


# -- the mean of several sets ------------------------------------------------------------------------------------------

Values = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(Values, st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=6))
def test_half_widths_are_combined_in_quadrature(rows: list[tuple[float, float, float]]) -> None:
    estimates = [Estimate(value=v, low=v - below, high=v + above, n=9) for v, below, above in rows]
    mean = evaluate.mean(estimates)
    count = len(rows)
    assert mean.value == pytest.approx(sum(v for v, *_ in rows) / count, abs=1e-6)
    assert mean.low is not None
    assert mean.high is not None
    for i, found in ((1, mean.value - mean.low), (2, mean.high - mean.value)):
        assert found == pytest.approx(math.sqrt(sum(row[i] ** 2 for row in rows)) / count, abs=1e-6)
    assert mean.n == 9


def test_the_mean_of_intervals_holds_the_truth_as_often_as_they_do() -> None:
    """Normal numbers of standard error 1, a thousand times three: 95 % of the intervals hold 0."""
    drawn = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).double().tolist()
    means = [evaluate.mean([Estimate(value=v, low=v - 1.96, high=v + 1.96, n=1) for v in row]) for row in drawn]
    held = sum(mean.low <= 0 <= mean.high for mean in means)  # type: ignore[operator]
    assert 930 <= held <= 970


def test_what_is_unknown_stays_so() -> None:
    known, unknown = Estimate(value=1, low=0, high=2, n=5), Estimate(value=3, low=2, n=5)
    mean = evaluate.mean([known, unknown])
    assert (mean.value, mean.low, mean.high) == (2, pytest.approx(2 - math.sqrt(2) / 2), None)
    assert evaluate.mean([unknown]) == unknown
    rows = [Estimate(value=0, n=5, by_class=by_class) for by_class in ((1.0, None, 4.0), (3.0, None, None))]
    assert evaluate.mean(rows).by_class == (2.0, None, 4.0)


# -- references --------------------------------------------------------------------------------------------------------


class Means(Extractor):
    """The mean of each image; ships nothing."""

    name = "means"
    width = 1
    digest = "0" * 64

    def extract(self, images: torch.Tensor) -> Features:
        return Features(images.mean(dim=(2, 3)))


def test_a_reference_without_shipped_features_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = default_zoo()
    try:
        images = zoo.make("dataset", "fashion-mnist").load("train")
    except GenzooError:
        pytest.skip("Fashion-MNIST is not installed")
    monkeypatch.setattr(evaluate, "TRAIN_IMAGES", 50)
    reference = evaluate.load_reference(zoo, Means(), "fashion-mnist")
    assert len(reference) == 10_000
    assert reference.train is not None
    assert torch.equal(reference.train.vectors, images.floats(slice(50)).mean(dim=(2, 3)))
    assert torch.equal(reference.train.labels, images.labels[:50])
    assert evaluate.load_reference(zoo, Means(), "fashion-mnist", train=False).train is None


def test_row_i_of_the_shipped_training_features_is_training_image_i() -> None:
    zoo = default_zoo()
    try:
        images = zoo.make("dataset", "fashion-mnist").load("train")
    except GenzooError:
        pytest.skip("Fashion-MNIST is not installed")
    extractor = evaluate.find_extractor(zoo, None, "fashion-mnist")
    train = evaluate.load_reference(zoo, extractor, "fashion-mnist").train
    assert torch.equal(train.labels, images.labels[: len(train)])
    seen = evaluate.features_of(extractor, images.pixels[:100])
    torch.testing.assert_close(seen.vectors, train[:100].vectors, atol=2e-3, rtol=2e-3)


def test_metrics_are_found_with_their_options() -> None:
    found = evaluate.find_metrics(default_zoo(), ("frechet", "precision:k=7"))
    assert list(found) == ["frechet", "precision"]
    assert found["precision"].k == 7
    assert set(evaluate.find_metrics(default_zoo())) == set(default_zoo().names("metric"))
    with pytest.raises(UnknownName, match="did you mean 'frechet'"):
        evaluate.find_metrics(default_zoo(), ["frechett"])


def test_an_extractor_that_breaks_stops_nobody_who_did_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = default_zoo()
    names, make = zoo.names, zoo.make

    def broken(kind: str, spec: str) -> Any:
        if spec == "aaa":
            raise GenzooError("plugin aaa is broken")
        return make(kind, spec)

    monkeypatch.setattr(zoo, "names", lambda kind: ["aaa", *names(kind)])
    monkeypatch.setattr(zoo, "make", broken)
    assert evaluate.find_extractor(zoo, None, "fashion-mnist").name == "fashion-classifier (128 wide)"
    with pytest.raises(GenzooError, match="aaa is broken"):
        evaluate.find_extractor(zoo, "aaa", "fashion-mnist")


# -- one way for all ---------------------------------------------------------------------------------------------------


def test_a_training_curve_measures_as_a_comparison_does(tiny: str) -> None:
    from genzoo.run_files import Curve

    model = default_zoo().load(tiny)
    measure = SimpleNamespace(every=5, n=40, extractor="fashion-classifier", metrics=("frechet", "label-accuracy"))
    file: Any = SimpleNamespace(measure=measure, data=SimpleNamespace(name="fashion-mnist"))
    recipe: Any = SimpleNamespace(trained=lambda: SimpleNamespace(module=model, card={}))
    found = Curve(default_zoo(), file).measure(recipe)
    request = comparison.Request([tiny], range(40), "fashion-mnist", metrics=list(found), speed=False, control_n=0)
    compared = comparison.Comparison(default_zoo(), request)
    list(compared.run())
    assert found == {score.metric: pytest.approx(score.value) for score in compared.rows[0].scores}


def test_repetitions_are_the_rows_one_after_the_other() -> None:
    stream = torch.Generator().manual_seed(0)
    fake, real = (Features(torch.randn(n, 3, generator=stream)) for n in (90, 60))
    metrics = evaluate.find_metrics(default_zoo(), ("frechet", "label-accuracy"))
    reference = Reference(real.vectors)
    (score,) = evaluate.measure_metrics(metrics, fake, reference, repeats=3)
    assert score.metric == "frechet", "the other does not apply: there are no labels"
    expected = [metrics["frechet"](fake[i : i + 30], reference).value for i in (0, 30, 60)]  # type: ignore[union-attr]
    assert score.repeats == pytest.approx(expected)
    (single,) = evaluate.measure_metrics(metrics, fake, reference)
    assert single.repeats == ()


def test_labels_are_balanced_and_the_same_for_all(tiny: str) -> None:
    model = default_zoo().load(tiny)
    labels = evaluate.balanced_labels(model, 20)
    assert labels is not None
    assert torch.bincount(torch.tensor(labels)).tolist() == [2] * 10


@pytest.mark.parametrize("missing", ["", "logits", "labels"])
def test_joined_features_have_what_every_part_has(missing: str) -> None:
    whole = Features(torch.randn(7, 3), torch.randn(7, 2), torch.arange(7))
    first, second = whole[:4], whole[4:]
    joined = Features.joined([first, dataclasses.replace(second, **({missing: None} if missing else {}))])
    assert torch.equal(joined.vectors, whole.vectors)
    for name in ("logits", "labels"):
        found, wanted = getattr(joined, name), getattr(whole, name)
        assert found is None if name == missing else torch.equal(found, wanted)
