"""A comparison holds all models to the same, and one that fails is a row, not the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tiny import model_folder

from genzoo import bench, evaluate
from genzoo.errors import OptionError, ResultsError, UnknownName
from genzoo.registry import default_zoo
from genzoo.results import Results, read_results

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("tiny")))


def compare(models: list[str], **changes) -> Results:  # type: ignore[no-untyped-def]
    given = {"seeds": range(40), "dataset": "fashion-mnist", "speed": False, **changes}
    request = evaluate.Request(models=models, **given)
    events = list(evaluate.compare(default_zoo(), request))
    assert [event.results for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].results is not None
    return events[-1].results


def test_a_comparison_has_a_row_a_model_and_the_floor(tiny: str) -> None:
    results = compare([tiny])
    model, floor = results.models
    assert model.name == "tiny.dcgan"
    assert {score.metric for score in model.scores} == set(default_zoo().names("metric"))
    assert floor.kind == "data"
    assert floor.score("frechet").value < model.score("frechet").value
    assert model.sheet is not None
    assert model.sheet.seeds == tuple(range(40))
    assert len(model.sheet.labels) == 10
    assert results.seeds == "0-39"


def test_the_same_numbers_again_and_in_any_company(tiny: str) -> None:
    alone, twice = compare([tiny]), compare([tiny, tiny])
    for model in twice.models[:2]:
        for one, other in zip(alone.models[0].scores, model.scores, strict=True):
            assert one.metric == other.metric
            # The last bits of a matrix product depend on where its operands lie in memory.
            for key in ("value", "low", "high"):
                assert getattr(one, key) == pytest.approx(getattr(other, key), abs=1e-9)


def test_results_round_trip_through_a_file(tiny: str, tmp_path: Path) -> None:
    results = compare([tiny])
    results.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "format None"),
        ('{"format": "genzoo.results/9"}', "run genzoo compare again"),
        ('{"format": "genzoo.results/1", "n": -1}', "made"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=match) as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


def test_mistakes_are_told_before_anything_is_computed(tiny: str) -> None:
    with pytest.raises(UnknownName, match="no model named"):
        compare([tiny, "ddpm.fashion-mnits"])
    with pytest.raises(UnknownName, match="did you mean 'frechet'"):
        compare([tiny], metrics=["frechett"])
    with pytest.raises(OptionError, match="none of these models has an option 'steps'"):
        compare([tiny], options={"steps": 3})
    with pytest.raises(OptionError, match="too few"):
        compare([tiny], seeds=range(5))
    with pytest.raises(OptionError, match="no model was trained on 'cats'"):
        compare([], dataset="cats")


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


def test_speed_is_measured_in_a_fresh_process(tiny: str) -> None:
    speed = bench.measure(tiny, {}, batch=8, device="cpu")
    assert speed.nfe == 1
    assert speed.flops is not None
    assert speed.flops > 0
    assert speed.images_per_second > 0
    assert len(speed.latency) >= bench.LEAST
    assert len(speed.batch_seconds) >= bench.LEAST
    assert speed.peak_bytes is None or speed.peak_bytes > 50e6
    assert min(speed.load_seconds, speed.first_seconds, *speed.latency, *speed.batch_seconds) > 0


def test_flops_are_counted_as_multiplication_and_addition() -> None:
    model = default_zoo().load(str(model_folder_of_one()))
    # The transposed convolutions of the tiny DCGAN: 7x7 from 1x1, 14x14 from 7x7, 28x28 from 14x14.
    expected = 2 * (16 * 8 * 49 * 1 + 8 * 4 * 16 * 49 + 4 * 1 * 16 * 196)
    assert bench.count_flops(model, {}) == expected


def model_folder_of_one() -> Path:
    import tempfile
    from pathlib import Path

    return model_folder(Path(tempfile.mkdtemp()))


def test_seeds_in_words() -> None:
    assert evaluate.seeds_in_words(range(3, 9)) == "3-8"
    assert evaluate.seeds_in_words([5]) == "5"
    assert evaluate.seeds_in_words([1, 3, 5]) == "1,3,5"


def test_labels_are_balanced_and_the_same_for_all(tiny: str) -> None:
    model = default_zoo().load(tiny)
    labels = evaluate.balanced_labels(model, 20)
    assert labels is not None
    assert torch.bincount(torch.tensor(labels)).tolist() == [2] * 10
