"""Samples on disk: exactly n images, none twice, the same bytes however often the run was killed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file
from tiny import model_folder

from genzoo.errors import GenzooError, OptionError
from genzoo.files import sha256_of
from genzoo.manifest import Manifest, read_manifest
from genzoo.registry import default_zoo
from genzoo.samples import LOCK, MANIFEST, sample, weights_digest

COUNT, SHARD, BATCH = 23, 5, 4


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "gan")


def fill(gan: Path, out: Path, stop_after: int | None = None, **changes: Any) -> list[int]:
    """Fill the folder; with ``stop_after`` the run is abandoned after so many events, as if it had been killed."""
    settings = {"count": COUNT, "shard": SHARD, "batch": BATCH, **changes}
    events = sample(default_zoo(), str(gan), out, **settings)
    seen = [progress.done for _, progress in zip(range(stop_after or 10**9), events, strict=False)]
    events.close()
    return seen


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


@pytest.fixture(scope="module", params=["safetensors", "png"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(gan: Path, format: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / format
    assert fill(gan, out, format=format) == [0, 4, 5, 9, 10, 14, 15, 19, 20, 23]
    return out


def images(folder: Path) -> dict[int, torch.Tensor]:
    """Image by seed, read by other people's libraries."""
    found: dict[int, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        for seed, image in zip(tensors["seeds"].tolist(), tensors["images"], strict=True):
            assert seed not in found
            found[seed] = image
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            assert picture.info["genzoo:seed"] == str(int(path.stem))
            found[int(path.stem)] = torch.tensor(list(picture.tobytes()), dtype=torch.uint8).view(1, 28, 28)
    return found


def test_the_images_are_those_of_the_seeds(gan: Path, whole: Path) -> None:
    model = default_zoo().load(str(gan))
    wanted = model.generate(range(COUNT), batch=BATCH, exact=True)
    found = images(whole)
    assert sorted(found) == list(range(COUNT))
    for seed, image in found.items():
        assert (image.float() - (wanted[seed] + 1) * 127.5).abs().max() <= 0.5001


def test_the_manifest_tells_everything(gan: Path, whole: Path, format: str) -> None:
    manifest = read_manifest(whole / MANIFEST)
    assert manifest.settings.model == "tiny.dcgan"
    assert manifest.settings.weights == sha256_of(gan / "model.safetensors")
    assert (manifest.count, manifest.settings.format) == (COUNT, format)
    assert manifest.environment.versions["torch"] == torch.__version__
    files = {asset.file: asset for asset in manifest.files}
    assert files.keys() == bytes_of(whole).keys() - {MANIFEST}
    for name, asset in files.items():
        assert asset.sha256 == sha256_of(whole / name)
        assert asset.size == (whole / name).stat().st_size


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 9, 10])
def test_an_abandoned_run_goes_on_and_ends_with_the_same_bytes(
    gan: Path, whole: Path, format: str, tmp_path: Path, stop: int
) -> None:
    reached = fill(gan, tmp_path, stop_after=stop, format=format)[-1]
    assert read_manifest(tmp_path / MANIFEST).count == 0
    assert fill(gan, tmp_path, format=format)[0] == (reached if reached == COUNT else reached // SHARD * SHARD)
    assert bytes_of(tmp_path) == bytes_of(whole)


def test_a_finished_run_makes_nothing_again(gan: Path, whole: Path, format: str, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name.startswith(("shard", "0"))}
    assert fill(gan, out, format=format) == [COUNT]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_damaged_or_removed_is_made_anew(
    gan: Path, whole: Path, format: str, tmp_path: Path, finished: bool
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    if not finished:
        told = json.loads((out / MANIFEST).read_text())
        (out / MANIFEST).write_text(json.dumps({**told, "count": 0, "files": []}))
    first, second, *_ = (out / asset.file for asset in read_manifest(whole / MANIFEST).files[1:])
    first.unlink()
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2])
    fill(gan, out, format=format)
    assert bytes_of(out) == bytes_of(whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 24}, "count 23 there, 24 now"),
        ({"seed": 1}, "seed 0 there, 1 now"),
        ({"batch": 8}, "batch 4 there, 8 now"),
        ({"shard": 6}, "shard 5 there, 6 now"),
        ({"format": "png"}, "format 'safetensors' there, 'png' now"),
        ({"labels": ["class 3"]}, r"labels \[\] there, \['class 3'\] now"),
        ({"dtype": "bfloat16"}, "dtype 'float32' there, 'bfloat16' now"),
    ],
)
def test_other_settings_are_refused_by_name(gan: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    fill(gan, tmp_path, stop_after=3)
    before = bytes_of(tmp_path)
    with pytest.raises(GenzooError, match=f"begun with other settings: {words}; repeat those, or choose another --out"):
        fill(gan, tmp_path, **changes)
    assert bytes_of(tmp_path) == before


def test_other_weights_options_and_machines_are_refused(gan: Path, tmp_path: Path) -> None:
    fill(gan, tmp_path, stop_after=1)
    begun = (tmp_path / MANIFEST).read_text()
    told = json.loads(begun)
    digest, torch_version, threads = told["settings"]["weights"], torch.__version__, torch.get_num_threads()
    for old, new, words in (
        (f'"weights": "{digest}"', f'"weights": "{"0" * 64}"', f"weights '{'0' * 64}' there, '{digest}' now"),
        ('"options": {}', '"options": {"steps": 9}', "option steps 9 there, None now"),
        (f'"threads": {threads}', '"threads": 77', f"threads 77 there, {threads} now"),
        (f'"torch": "{torch_version}"', '"torch": "1.0"', f"version of torch '1.0' there, '{torch_version}' now"),
    ):
        assert old in begun
        (tmp_path / MANIFEST).write_text(begun.replace(old, new))
        with pytest.raises(GenzooError) as caught:
            fill(gan, tmp_path)
        assert f"begun with other settings: {words}; repeat those" in str(caught.value)
    (tmp_path / MANIFEST).write_text(begun)
    assert fill(gan, tmp_path)[-1] == COUNT


def test_two_processes_never_fill_one_folder(gan: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(GenzooError, match="is being filled by another process"):
        fill(gan, tmp_path)
    assert fill(gan, tmp_path)[-1] == COUNT


def test_a_folder_of_other_things_is_left_alone(gan: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(GenzooError, match=r"holds thesis\.tex, which no manifest\.json tells of"):
        fill(gan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "thesis.tex"]


def test_labels_are_taken_in_turn_across_shards(gan: Path, tmp_path: Path) -> None:
    fill(gan, tmp_path, labels=["class 3", "7", "1"])
    labels = torch.cat([load_file(path)["labels"] for path in sorted(tmp_path.glob("shard-*"))])
    assert labels.tolist() == [(3, 7, 1)[i % 3] for i in range(COUNT)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["clas 3"]}, "no label named 'clas 3'"),
        ({"options": {"steps": 3}}, "no option named 'steps'"),
        ({"options": {"labels": 3}}, "give labels="),
        ({"batch": 0}, "batch: Input should be greater"),
        ({"shard": 0}, "shard: Input should be greater"),
        ({"seed": 2**32 - 5}, "seed 4294967313 is out of range"),
        ({"shrad": 5}, "shrad: unknown key; did you mean 'shard'?"),
    ],
)
def test_a_mistake_writes_nothing(gan: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        fill(gan, tmp_path / "out", **changes)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_broken_manifest_is_an_error_and_not_a_fresh_start(gan: Path, tmp_path: Path) -> None:
    fill(gan, tmp_path, stop_after=3)
    for text in ("", "{}", '{"version": 0}', "[" * 10_000, (tmp_path / MANIFEST).read_text()[:-40]):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(GenzooError, match=r"manifest\.json cannot be read as a manifest of samples"):
            fill(gan, tmp_path)
    (tmp_path / MANIFEST).write_text('{"version": 2, "more": 1}')
    with pytest.raises(GenzooError, match=r"samples: version 2 is of a newer genzoo than .*; update genzoo$"):
        fill(gan, tmp_path)


def test_weights_without_a_pin_are_named_by_their_numbers(gan: Path) -> None:
    one, two = default_zoo().load(str(gan)), default_zoo().load(str(gan))
    one.card = two.card = None
    assert weights_digest(one) == weights_digest(two)
    next(two.parameters()).data.flatten()[0] += 1
    assert weights_digest(one) != weights_digest(two)


# -- the process -------------------------------------------------------------------------------------------------------


def command(gan: Path, out: Path, count: int, shard: int = 20) -> list[str]:
    options = ["--shard", str(shard), "--batch", "4", "-o", str(out)]
    return [sys.executable, "-m", "genzoo", "sample", str(gan), "-n", str(count), *options]


def end(process: subprocess.Popen[str], number: int, ready: Callable[[], bool]) -> tuple[int, str]:
    """Send a signal when something is so; returns the exit code and what was said."""
    deadline = time.monotonic() + 100
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_run_that_goes_on(gan: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    typed = command(gan, out, 20_000)
    ended, said = end(start(typed), number, lambda: len(list(out.glob("shard-*"))) > 2)
    assert ended == code, said
    if number != signal.SIGKILL:
        assert said.splitlines()[-1] in ("genzoo: terminated", "genzoo: interrupted")
        assert not list(out.glob(".*.part"))
    assert read_manifest(out / MANIFEST).count == 0
    made = len(list(out.glob("shard-*")))
    events = sample(default_zoo(), str(gan), out, count=20_000, shard=20, batch=4)
    assert next(events).done == 20 * made
    events.close()


def test_a_full_disk_is_one_line_and_the_run_goes_on(gan: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the same place."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    out = tmp_path / "out"
    process = start(command(gan, out, 30, shard=10), preexec_fn=limit)
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert stderr.startswith("genzoo: ")
    assert "shard-00000.safetensors: File too large; check the path, its rights and the free space" in stderr
    assert sorted(path.name for path in out.iterdir()) == [LOCK, MANIFEST]
    assert fill(gan, out, count=30, shard=10)[-1] == 30


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_nine_at_twenty_moments(gan: Path, tmp_path: Path, processes: int) -> None:
    """kill -9 again and again, each time after a few more shards: the bytes are those of an uninterrupted run."""
    count = 4000
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command(gan, tmp_path / "whole", count), env=environment, check=False).returncode == 0
    out = tmp_path / "out"
    typed = command(gan, out, count)
    if processes > 1:
        typed = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *typed[1:]]
    for attempt in range(20):
        process = start(typed, env=environment, start_new_session=True)
        deadline = time.monotonic() + 100
        while (
            process.poll() is None and time.monotonic() < deadline and len(list(out.glob("shard-*"))) < 9 * attempt + 1
        ):
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()
        kill_all(process.pid)
        process.communicate()
    assert subprocess.run(typed, env=environment, capture_output=True, check=False).returncode == 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert sorted(images(out)) == list(range(count))


def kill_all(parent: int) -> None:
    """kill -9 for a process and what it started, as a machine that goes down."""
    children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    for pid in (parent, *map(int, children)):
        os.kill(pid, signal.SIGKILL)


def test_the_manifest_survives_its_own_round_trip(whole: Path) -> None:
    raw = (whole / MANIFEST).read_text()
    manifest = Manifest.model_validate_json(raw, strict=True)
    assert json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n" == raw
