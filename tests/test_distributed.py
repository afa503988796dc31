"""Several processes work as one: the same files whoever made them, the same weights on all, and one fate."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from tiny import image_folder, model_folder, recipe_text

from genzoo.distributed import World, joined
from genzoo.registry import default_zoo
from genzoo.samples import LOCK, sample
from genzoo.weights import read

#: Processes find each other on this machine alone.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(processes: int, *arguments: str | Path) -> list[str]:
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *start, *map(str, arguments)]


def run(*arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = torchrun(processes, *arguments)
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and what each of two processes told."""
    out = tmp_path_factory.mktemp("ranks")
    model_folder(out / "gan")
    done = run(ranks.__file__, out, str(torch.get_num_threads()))
    assert done.returncode == 0, done.stderr
    return out, [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_what_processes_tell_each_other(told: tuple[Path, list[dict[str, Any]]]) -> None:
    one, two = (each["meetings"] for each in told[1])
    assert one["world"] == [0, 2, True, "cpu"]
    assert two["world"] == [1, 2, False, "cpu"]
    assert (one["share"], two["share"]) == ([0, 2, 4, 6], [1, 3, 5])
    assert (one["part"], two["part"]) == ([0, 1, 2, 3], [4, 5, 6, 7])
    for each in (one, two):
        assert each["by_first"] == {"told by": 0, "text": "ü\n" * 1000}
        assert each["refused"] == "the first process says no"
        assert each["any"] == [False, True, True]
        assert each["means"] == {"b": 0.5, "a": 5.0}
        assert each["infinite"] == "{'x': nan}"


def test_a_group_that_ended_leaves_no_thread_behind(told: tuple[Path, list[dict[str, Any]]]) -> None:
    # One of gloo's that lets go of a tensor while the interpreter ends takes the process with it (SIGABRT).
    for each in told[1]:
        assert not [name for name in each["threads"] if "gloo" in name or "tcpstore" in name]


def test_one_process_is_a_world_of_its_own() -> None:
    with joined("cpu") as world:
        assert (world.rank, world.size, world.first, world.device) == (0, 1, True, "cpu")
        assert world.share([1, 2]) == [1, 2]
        assert world.part(torch.arange(3)).tolist() == [0, 1, 2]
        assert world.by_first(lambda: 3) == 3
        assert world.means({"a": 1.0}) == {"a": 1.0}
        assert (world.any(True), world.any(False)) == (True, False)
        world.wait()


@pytest.mark.parametrize("family", ["plain", "dcgan", "stylegan"])
def test_all_processes_hold_the_same_weights(told: tuple[Path, list[dict[str, Any]]], family: str) -> None:
    """Moments, averages, batch-norm statistics, the mean latent and the strength of the augmentation as well."""
    out, (one, two) = told
    first, second = (read(out / f"{family}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert one[family] == two[family]


def test_without_noise_and_batch_statistics_it_is_the_training_of_one(
    told: tuple[Path, list[dict[str, Any]]], request: pytest.FixtureRequest
) -> None:
    """The gradients of two halves of a batch are those of the whole, and clipping sees them so."""
    out, (one, _) = told
    drawn = torch.random.get_rng_state()
    request.addfinalizer(lambda: torch.random.set_rng_state(drawn))
    tensors, values = ranks.trained("plain", World())
    halves = read(out / "plain-0.safetensors")
    for name, tensor in tensors.items():
        torch.testing.assert_close(halves[name], tensor, rtol=1e-4, atol=1e-6)
    for mine, whole in zip(one["plain"], values, strict=True):
        assert mine == pytest.approx(whole, rel=1e-5)


def test_two_processes_make_the_files_of_one(told: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    out, (one, two) = told
    list(sample(default_zoo(), str(out / "gan"), tmp_path, count=23, shard=5, batch=4))
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK}
    assert len(made) == 6
    assert {path.name: path.read_bytes() for path in (out / "samples").iterdir() if path.name != LOCK} == made
    assert one["samples"][-1] == [13, 13]  # shards 0, 2 and the short 4
    assert two["samples"][-1] == [10, 10]


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    image_folder(folder / "data")
    (folder / "recipe.yaml").write_text(recipe_text(folder / "data"))
    (folder / "long.yaml").write_text(recipe_text(folder / "data", steps=100_000))
    return folder / "recipe.yaml"


def train(recipe: Path, out: Path, *more: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    return run("-m", "genzoo", "train", recipe, "--out", out, *more, processes=processes)


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_with_two(recipe: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = train(recipe, whole)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the result is in") == 1
    assert [json.loads(line)["step"] for line in (whole / "log.jsonl").read_text().splitlines()] == [2, 4, 6, 8, 10, 12]
    assert "2 processes of 1 thread" in (whole / "model" / "card.yaml").read_text()

    assert train(recipe, cut, "--time-limit", "0.001").returncode == 0
    assert not (cut / "model").exists()
    refused = train(recipe, cut, "--resume", processes=1)
    assert refused.returncode != 0
    assert "was begun by 2 processes, not 1; resume it with as many" in refused.stderr
    done = train(recipe, cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(cut) == weights(whole)


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(recipe: Path, tmp_path: Path) -> None:
    done = train(recipe, tmp_path / "out", processes=3)
    assert done.returncode != 0
    assert "batch is 8, which 3 processes cannot share equally" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_others(recipe: Path, tmp_path: Path, victim: int) -> None:
    out = tmp_path / "out"
    command = torchrun(2, "-m", "genzoo", "train", recipe.parent / "long.yaml", "--out", out)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        workers = workers_of(process, out / "log.jsonl")
        os.kill(workers[victim], signal.SIGKILL)
        _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert re.search(rf"local_rank: {victim}", said)
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    # The first may have been in the middle of a checkpoint; the others write nothing.
    assert len(list(out.rglob("*.part"))) <= (victim == 0)
    resumed = train(recipe.parent / "long.yaml", out, "--resume", "--time-limit", "0.001")
    assert resumed.returncode == 0, resumed.stderr
    assert not list(out.rglob("*.part"))


@pytest.mark.slow
def test_sigterm_ends_two_processes_with_one_checkpoint(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = torchrun(2, "-m", "genzoo", "train", recipe.parent / "long.yaml", "--out", out)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        workers_of(process, out / "log.jsonl")
        process.send_signal(signal.SIGTERM)
        told, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "Traceback" not in said.split("torch/distributed/elastic")[0]
    stopped = re.search(r"stopped at step (\d+) of 100000; go on with: genzoo train .* --resume", told)
    assert stopped is not None, (told, said)
    assert (out / "checkpoints" / f"step-{int(stopped[1]):08d}.json").exists()


def workers_of(process: subprocess.Popen[str], log: Path) -> list[int]:
    """The processes that torchrun started, by rank, once they have trained for a while."""
    deadline = time.monotonic() + 200
    while process.poll() is None and not (log.exists() and '"step": 4,' in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    found = {}
    for pid in map(int, children.split()):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        rank = next((item for item in environment if item.startswith(b"RANK=")), None)
        if rank is not None:
            found[int(rank.partition(b"=")[2])] = pid
    return [found[rank] for rank in sorted(found)]
