"""Training resumes to the same weights, survives damage, and stops where it must."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tiny import image_folder, recipe_text

from genzoo.checkpoints import flatten, unflatten
from genzoo.cli import Terminated
from genzoo.cli.train import Stop
from genzoo.data import Batches
from genzoo.documents import DocumentError
from genzoo.errors import GenzooError, TrainingError
from genzoo.recipe import LearningRate
from genzoo.registry import default_zoo
from genzoo.train import read_recipe, train
from genzoo.weights import read


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    image_folder(folder / "data")
    path = folder / "recipe.yaml"
    path.write_text(recipe_text(folder / "data"))
    return path


def run(recipe: Path, out: Path, stop_after: int | None = None, **options) -> list:
    """Train; with ``stop_after`` the run is abandoned there, as if it had been killed between two steps."""
    events = []
    for progress in train(read_recipe(recipe), out, zoo=default_zoo(), **options):
        events.append(progress)
        if progress.step == stop_after:
            break
    return events


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    run(recipe, out)
    return out


def same(a: Path, b: Path) -> None:
    one, two = read(a / "model" / "model.safetensors"), read(b / "model" / "model.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_a_resumed_run_ends_with_the_same_weights(recipe: Path, uninterrupted: Path, tmp_path: Path, stop: int) -> None:
    run(recipe, tmp_path / "out", stop_after=stop)
    killed = tmp_path / "out" / "checkpoints" / ".step-00000008.safetensors.0badcafe.part"
    killed.parent.mkdir(exist_ok=True)
    killed.write_bytes(b"half a checkpoint")
    events = run(recipe, tmp_path / "out", resume=True)
    assert events[0].step == stop // 4 * 4 + 1
    same(uninterrupted, tmp_path / "out")
    assert not killed.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("scheduler: dpmpp-2n", "did you mean 'dpmpp-2"),
        ("scheduler: 'dpmpp-2m:spacng=karras'", "did you mean 'spacing'"),
        ("guidance: cfgg", "did you mean 'cfg'"),
        ("step: 4", "did you mean 'steps'"),
    ],
)
def test_options_that_the_model_will_not_take_stop_a_run_before_it_begins(
    recipe: Path, tmp_path: Path, options: str, words: str
) -> None:
    """And not the first to use what was trained."""
    document = yaml.safe_load(recipe.read_text())
    document["settings"]["options"] = yaml.safe_load(options)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(GenzooError, match=words):
        run(tmp_path / "recipe.yaml", tmp_path / "out")
    assert not list((tmp_path / "out").glob("**/*.safetensors"))


def test_the_log_has_every_step_once_after_a_resume(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", stop_after=7)
    run(recipe, tmp_path / "out", resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8, 10, 12]


def test_a_time_limit_stops_with_a_checkpoint_and_resumes(recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    events = run(recipe, tmp_path / "out", time_limit=1e-6)
    assert [e.step for e in events] == [1]
    assert events[0].saved
    run(recipe, tmp_path / "out", resume=True)
    same(uninterrupted, tmp_path / "out")


def test_a_run_that_is_asked_to_stop_ends_with_a_checkpoint_and_resumes(
    recipe: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    asked = iter([False, False, True])
    events = run(recipe, tmp_path / "out", stop=lambda: next(asked))
    assert [(e.step, e.saved) for e in events] == [(1, False), (2, False), (3, True)]
    run(recipe, tmp_path / "out", resume=True)
    same(uninterrupted, tmp_path / "out")


def test_a_run_of_several_processes_is_not_resumed_by_one(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", stop_after=4)
    (record,) = (tmp_path / "out" / "checkpoints").glob("*.json")
    told = json.loads(record.read_text())
    assert told["progress"].pop("processes") == 1
    record.write_text(json.dumps({**told, "progress": {**told["progress"], "processes": 4}}))
    with pytest.raises(TrainingError, match="was begun by 4 processes, not 1; resume it with as many"):
        run(recipe, tmp_path / "out", resume=True)
    record.write_text(json.dumps(told))  # as older versions wrote it
    assert run(recipe, tmp_path / "out", resume=True)[0].step == 5


def test_a_checkpoint_of_a_newer_version_is_refused_and_one_that_names_none_is_not(
    recipe: Path, tmp_path: Path
) -> None:
    """Passed over as damaged, it would cost the steps since the one before it."""
    run(recipe, tmp_path / "out", stop_after=4)
    (record,) = (tmp_path / "out" / "checkpoints").glob("*.json")
    told = json.loads(record.read_text())
    record.write_text(json.dumps({"version": 2, "parts": []}))
    with pytest.raises(TrainingError, match=r"version 2 is of a newer genzoo than .*; update genzoo$"):
        run(recipe, tmp_path / "out", resume=True)
    assert told.pop("version") == 1
    record.write_text(json.dumps(told))
    assert run(recipe, tmp_path / "out", resume=True)[0].step == 5


def test_a_finished_run_can_be_lengthened(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out")
    longer = tmp_path / "longer.yaml"
    longer.write_text(recipe.read_text().replace("steps: 12", "steps: 14"))
    assert [e.step for e in run(longer, tmp_path / "out", resume=True)] == [13, 14]


def test_a_folder_in_use_and_other_settings_are_refused(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", stop_after=4)
    with pytest.raises(TrainingError, match="--resume"):
        run(recipe, tmp_path / "out")
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("seed: 3", "seed: 4"))
    with pytest.raises(TrainingError, match="other settings"):
        run(other, tmp_path / "out", resume=True)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", stop_after=9)
    newest = tmp_path / "out" / "checkpoints" / "step-00000008.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[-1] ^= 1
    newest.write_bytes(raw)
    with pytest.warns(UserWarning, match="step-00000008 is damaged"):
        events = run(recipe, tmp_path / "out", resume=True)
    assert events[0].step == 5
    same(uninterrupted, tmp_path / "out")


def test_if_every_checkpoint_is_damaged_it_is_an_error_not_a_restart(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", stop_after=9)
    for file in (tmp_path / "out" / "checkpoints").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(TrainingError, match="no checkpoint is whole"):
        run(recipe, tmp_path / "out", resume=True)


def test_what_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genzoo_plugins.diffusion.recipe import DiffusionRecipe

    real = DiffusionRecipe.step

    def broken(self, batch, noise):
        values = real(self, batch, noise)
        return {**values, "loss": float("nan")} if batch.step == 5 else values

    monkeypatch.setattr(DiffusionRecipe, "step", broken)
    with pytest.raises(TrainingError, match="loss is nan at step 6"):
        run(recipe, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "checkpoints").glob("*.json")) == ["step-00000004.json"]
    assert not (tmp_path / "out" / "model").exists()


def test_the_result_is_a_model_that_loads_and_generates(uninterrupted: Path) -> None:
    model = default_zoo().load(str(uninterrupted / "model"))
    images = model.generate([0, 1], labels=["left", "right"])
    assert images.shape == (2, 1, 8, 8)
    assert model.card is not None
    assert model.card.training is not None
    assert model.card.training.steps == 12
    assert model.card.options == {"steps": 4}
    assert model.card.licence == "unknown", "the recipe names none"


def test_the_card_says_the_recipes_licence_which_a_finished_run_can_change(recipe: Path, tmp_path: Path) -> None:
    """It is what is written of the weights, and they do not depend on it."""
    for licence in ("CC-BY-4.0", "MIT"):
        named = tmp_path / "recipe.yaml"
        named.write_text(f"licence: {licence}\n{recipe.read_text()}")
        run(named, tmp_path / "out", resume=licence == "MIT")
        card = default_zoo().load(str(tmp_path / "out" / "model")).card
        assert card is not None
        assert card.licence == licence


def test_no_litter_is_left(uninterrupted: Path) -> None:
    names = sorted(p.name for p in uninterrupted.rglob("*") if p.is_file())
    assert not [name for name in names if name.endswith(".part")]
    assert len(list((uninterrupted / "checkpoints").iterdir())) == 4


def test_a_recipe_error_names_line_and_key(recipe: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(recipe.read_text().replace("batch: 8", "batch: eight"))
    line = bad.read_text().splitlines().index("batch: eight") + 1
    with pytest.raises(DocumentError, match=rf"bad\.yaml:{line}: .*batch"):
        read_recipe(bad)


def test_flatten_round_trip() -> None:
    state = {"a": {0: {"x": torch.ones(2), "n": 3}, 1: None}, "b": [torch.zeros(1), 0.5, "text"], "c": True}
    tensors, shape = flatten(state)
    back = unflatten(json.loads(json.dumps(shape)), tensors)
    assert back["a"][0]["n"] == 3
    assert torch.equal(back["a"][0]["x"], torch.ones(2))
    assert back["b"][1:] == [0.5, "text"]
    assert back["c"] is True


def test_every_epoch_sees_every_image_once_and_batches_join_epochs() -> None:
    batches = Batches(length=10, batch=4, seed=1)
    seen = torch.cat([batches[k] for k in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(Batches(10, 4, 1)[3], batches[3])


def test_learning_rates() -> None:
    rate = LearningRate(peak=1.0, warmup=10, shape="trapezoid", decay=0.5)
    assert rate.at(0, 100) == pytest.approx(0.1)
    assert rate.at(49, 100) == 1
    assert rate.at(75, 100) == pytest.approx(0.5)
    assert rate.at(100, 100) == 0
    cosine = LearningRate(peak=1.0, shape="cosine")
    assert cosine.at(50, 100) == pytest.approx(0.5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_acts(number: int) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with Stop() as stop:
            assert not stop()
            signal.raise_signal(number)
            assert (stop(), heard) == (True, [])
            signal.raise_signal(number)
            assert heard == [number]
        signal.raise_signal(number)
        assert heard == [number, number]
        with pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
            stop.act()
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow)],
)
def test_a_signal_ends_training_with_a_checkpoint(
    recipe: Path, tmp_path: Path, number: int, code: int, word: str
) -> None:
    longer, out = tmp_path / "longer.yaml", tmp_path / "out"
    longer.write_text(recipe.read_text().replace("steps: 12", "steps: 100000").replace("every: 4", "every: 10000"))
    command = [sys.executable, "-m", "genzoo", "train", str(longer), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "log.jsonl").exists() and '"step": 4,' in (out / "log.jsonl").read_text():
                break
            time.sleep(0.005)
        process.send_signal(number)
        told, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert said.splitlines()[-1] == f"genzoo: {word}"
    (record,) = (out / "checkpoints").glob("*.json")
    step = json.loads(record.read_text())["step"]
    assert told.splitlines()[-1] == (
        f"stopped at step {step} of 100000; go on with: genzoo train {longer} --out {out} --resume"
    )
    resumed = train(read_recipe(longer), out, zoo=default_zoo(), resume=True)
    assert next(resumed).step == step + 1
    resumed.close()


@pytest.mark.slow
def test_kill_nine_at_twenty_moments(recipe: Path, tmp_path: Path) -> None:
    """kill -9 twenty times, each time a little further on: the weights are those of the uninterrupted run."""
    longer = tmp_path / "longer.yaml"
    longer.write_text(recipe.read_text().replace("steps: 12", "steps: 200"))
    command = [sys.executable, "-m", "genzoo", "train", str(longer), "--out", str(tmp_path / "out")]
    log = tmp_path / "out" / "log.jsonl"
    for attempt in range(20):
        extra = ["--resume"] if attempt else []
        process = subprocess.Popen([*command, *extra], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = f'"step": {8 * (attempt + 1)},'
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and wanted in log.read_text():
                break
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = [*command[:-1], str(tmp_path / "whole")]
    assert subprocess.run(whole, capture_output=True, check=False).returncode == 0
    same(tmp_path / "whole", tmp_path / "out")
