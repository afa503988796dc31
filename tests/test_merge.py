"""Results of several runs as one: everything is kept, and nothing is mixed that cannot be compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_cases as cases

from genzoo.cli import run
from genzoo.errors import ResultsError
from genzoo.merge import SHARED, SHARED_IN_TRAINING, Source, merge
from genzoo.results import Results, Stability, read_record

FIRST, SECOND, THIRD = cases.three()

#: Another value for whatever results must share.
OTHER = {
    "dataset": "cifar-ten",
    "split": "train",
    "reference_n": 5000,
    "extractor": "other eyes",
    "digest": "1" * 64,
    "n": 700,
    "repeats": 1,
    "seeds": "5-9",
    "classes": ("one", "two"),
}


def merged(*records: Results | Stability) -> Results:
    made = merge([Source(f"{i}.json", record) for i, record in enumerate(records)])
    assert isinstance(made, Results)
    return made


def test_all_models_of_all_files_stand_in_one_and_the_floor_once() -> None:
    made = merged(cases.results(FIRST, cases.floor()), cases.results(SECOND, THIRD, cases.floor()))
    assert [model.name for model in made.models] == [FIRST.name, SECOND.name, THIRD.name, "real images"]
    assert all(model.environment is None and model.command is None for model in made.models)


def test_one_file_comes_back_as_it_is() -> None:
    assert merged(cases.full()) == cases.full()


def test_merging_twice_is_merging_once() -> None:
    """What was merged can be merged with more, and every row keeps the place where it was measured."""
    away = cases.results(SECOND, environment=cases.environment("Apple M2", 8), command="genzoo compare there")
    third = cases.results(THIRD, environment=cases.environment("Graviton", 4))
    at_once = merged(cases.results(FIRST), away, third)
    assert merged(merged(cases.results(FIRST), away), third) == at_once
    places = [(model.environment or at_once.environment).processor for model in at_once.models]
    assert places == ["AMD EPYC 7763", "Apple M2", "Graviton"]
    assert at_once.models[1].command == "genzoo compare there"
    # From the other end: rows of the first machine are now the ones that were measured elsewhere.
    turned = merged(away, merged(cases.results(FIRST), third))
    assert [(m.environment or turned.environment).processor for m in turned.models] == [
        "Apple M2",
        "AMD EPYC 7763",
        "Graviton",
    ]


@pytest.mark.parametrize("key", SHARED)
def test_what_cannot_be_compared_is_refused_by_name(key: str) -> None:
    assert set(OTHER) == set(SHARED)
    one, other = cases.results(FIRST), cases.results(SECOND, **{key: OTHER[key]})
    with pytest.raises(ResultsError, match="cannot be compared") as caught:
        merge([Source("here.json", one), Source("there.json", other)])
    message = str(caught.value)
    assert "\n" not in message
    for wanted in (f": {key} is ", "here.json", "there.json", "report them apart"):
        assert wanted in message
    if key not in ("classes", "digest"):
        assert repr(getattr(one, key)) in message
        assert repr(OTHER[key]) in message


def test_a_model_measured_twice_on_one_machine_is_refused_and_on_two_is_kept() -> None:
    with pytest.raises(
        ResultsError, match=r"dcgan.fashion-mnist was measured twice on one machine, in 0.json and 1.json"
    ):
        merged(cases.results(FIRST), cases.results(FIRST))
    away = cases.results(FIRST, environment=cases.environment("Apple M2"))
    assert len(merged(cases.results(FIRST), away).models) == 2
    slow = FIRST.model_copy(update={"options": {"steps": 50}})
    assert len(merged(cases.results(FIRST), cases.results(slow)).models) == 2


def test_training_stands_beside_a_comparison_once() -> None:
    record = cases.stability()
    made = merged(cases.results(FIRST, stability=(record,)), record, cases.results(SECOND, stability=(record,)))
    assert made.stability == (record,)
    assert [model.name for model in made.models] == [FIRST.name, SECOND.name]


def test_training_alone_is_joined_and_checked() -> None:
    one = cases.stability(cases.family("dcgan.tiny", "dcgan", 3, (1.0, 1.0)))
    other = cases.stability(cases.family("diffusion.tiny", "diffusion", 3, (1.0, 1.0)))
    assert merge([Source("a", one), Source("b", other)]) == (one, other)
    longer = cases.stability(cases.family("dcgan.tiny", "dcgan", 4, (1.0, 1.0)))
    with pytest.raises(ResultsError, match=r"dcgan.tiny was trained twice from seed 0 on one machine, in a and b"):
        merge([Source("a", one), Source("b", longer)])
    for key in SHARED_IN_TRAINING:
        changed = other.model_copy(update={key: OTHER[key]})
        with pytest.raises(ResultsError, match=f": {key} is "):
            merge([Source("a", one), Source("b", changed)])
    with pytest.raises(ResultsError, match=": digest is "):
        merge([Source("a", cases.results(FIRST)), Source("b", one.model_copy(update={"digest": "1" * 64}))])
    # Fewer images for training than for the comparison: they never share a column.
    assert merged(cases.results(FIRST, n=2000), one).stability == (one,)


def test_the_command_merges_and_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for i, record in enumerate((cases.results(FIRST), cases.results(SECOND, THIRD), cases.stability())):
        paths.append(str(tmp_path / f"{i}.json"))
        record.write(Path(paths[-1]))
    assert run(["report", *paths, "-o", str(tmp_path / "out")]) == 0
    assert "Choose ddpm for quality" in capsys.readouterr().out
    made = read_record(tmp_path / "out" / "results.json")
    assert isinstance(made, Results)
    assert len(made.models) == 3
    assert len(made.stability) == 1
    # What it wrote makes the same report again.
    assert run(["report", str(tmp_path / "out" / "results.json"), "-o", str(tmp_path / "again")]) == 0
    for name in ("report.html", "report.md", "results.json"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "out" / name).read_text()
    cases.results(FIRST, n=7).write(tmp_path / "few.json")
    capsys.readouterr()
    assert run(["report", paths[1], str(tmp_path / "few.json"), "-o", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "n is 1000 in" in error
    assert not (tmp_path / "no").exists()
    assert run(["report", paths[1], "--sort", "throughputs", "-o", str(tmp_path / "no")]) == 2
    assert "no measure named 'throughputs'; did you mean 'throughput'?" in capsys.readouterr().err
