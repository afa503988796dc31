"""The commands around the Hub as a user types them, each in a process of its own, against a Hub on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner
from hub_server import Fault, Hub, closed_port
from small import apart, small_card

from genzoo import digests
from genzoo import hub as genzoo_hub
from genzoo.cli import hub as genzoo_cli
from genzoo.publish import push as upload
from genzoo.registry import Shelved, Zoo, default_zoo
from genzoo.tensors import write
from genzoo.weights import build

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "Secret" * 6


@pytest.fixture(name="hub")
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with apart(tmp_path, monkeypatch), Hub() as hub:
        yield hub


def genzoo(endpoint: str, *words: str, code: int = 0, **environment: str) -> str:
    """What a command says; a failure must be one line of error, without the token."""
    given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(Path("home").absolute()), "HF_TOKEN": TOKEN, **environment}
    given["HF_HUB_DOWNLOAD_TIMEOUT"] = "120"  # nothing stalls here, however busy the machine
    done = subprocess.run(
        [sys.executable, "-m", "genzoo", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **given},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    if code:
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().count("\n") == 0
    return done.stdout + done.stderr


def test_a_model_goes_there_and_back(hub: Hub) -> None:
    torch.manual_seed(0)
    made = build(default_zoo(), small_card(options={"steps": 2})).eval()
    made.save_pretrained("small")
    assert "/commit/" in genzoo(hub.endpoint, "push", "small", "--repo", "me/small")
    assert {"README.md", "config.json", "model.safetensors", "samples.png"} <= set(
        hub.repos["me/small"].commits[hub.repos["me/small"].refs["main"]]
    )
    said = genzoo(hub.endpoint, "pull", "hf:me/small")
    assert "pinned in" in said
    assert "try: genzoo generate hf:me/small" in said
    # What was pulled is there without the Hub, pixel for pixel.
    genzoo(hub.endpoint, "generate", "small", "--seeds", "1", "-o", "a.png")
    genzoo(closed_port(), "generate", "hf:me/small", "--seeds", "1", "-o", "b.png", HF_HUB_OFFLINE="1")
    assert Path("a.png").stat().st_size > 0
    assert Path("b.png").stat().st_size > 0
    fetched = [path for method, path, _ in hub.log if method == "GET" and path.endswith(".safetensors")]
    assert len(fetched) == 1
    # So is the example of its model card.
    text = genzoo_hub.pull("hf:me/small", endpoint=hub.endpoint, cache_dir="home/hub").text("README.md")
    code = text.split("```python\n")[1].split("```")[0] + "\nassert images.shape == (8, 3, 8, 8)\n"
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(Path("home").absolute())}
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
    assert "files are as they were pinned" in genzoo(hub.endpoint, "verify")
    assert "hf:me/small" in genzoo(hub.endpoint, "cache", "list")
    assert "in all" in genzoo(hub.endpoint, "cache", "size")
    assert "MB  hf:me/small" in genzoo(hub.endpoint, "cache", "size", "hf:me/small")
    assert "whole repositories" in genzoo(hub.endpoint, "cache", "size", "hf:me/small@v1", code=2)
    assert "installed already" in genzoo(hub.endpoint, "pull", "ddpm.fashion-mnist", code=2)
    kept = [path for path in Path().rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not kept
    assert "freed" in genzoo(hub.endpoint, "cache", "remove", "hf:me/small")
    assert "hf:me/small" not in genzoo(hub.endpoint, "cache", "list")


@pytest.mark.parametrize("disabled", [False, True])
def test_a_download_shows_its_progress_where_somebody_looks(hub: Hub, disabled: bool) -> None:
    """On standard error if that is a terminal, and never on standard output."""
    made = build(default_zoo(), small_card(options={"steps": 2})).eval()
    upload(made, "me/small", endpoint=hub.endpoint, token=TOKEN, samples=False)
    theirs, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(Path("home").absolute())}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if disabled else {}
    command = [sys.executable, "-m", "genzoo", "pull", "hf:me/small"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=ours, env={**os.environ, **environment}, check=True, text=True
    )
    os.close(ours)
    said = b""
    with contextlib.suppress(OSError):  # a terminal that nobody writes to any more ends so
        while more := os.read(theirs, 65536):
            said += more
    os.close(theirs)
    assert "%" not in done.stdout
    assert "\r" not in done.stdout
    assert (b"model.safetensors: 100%" in said) != disabled
    assert not disabled or not said


def test_verify_believes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the catalogue is read again, though its sha256 is remembered as the right one."""
    zoo, weights = Zoo(), tmp_path / "model.safetensors"
    asset = write(weights, {"w": torch.ones(3)})
    zoo.shelf["diffusion.small"] = Shelved(small_card(weights=asset.model_dump()), tmp_path)
    monkeypatch.setattr(digests, "remembered", lambda *_: asset.sha256)
    monkeypatch.setattr(genzoo_cli, "default_zoo", lambda: zoo)
    run, words = CliRunner(), ["--cache-dir", str(tmp_path / "none")]
    with apart(tmp_path, monkeypatch):
        done = run.invoke(genzoo_cli.verify, words, standalone_mode=False)
        assert (done.return_value, done.output) == (0, "1 of 1 files are as they were pinned\n")
        write(weights, {"w": torch.zeros(3)})
        done = run.invoke(genzoo_cli.verify, words, standalone_mode=False)
        assert done.return_value == 2
        assert f"{weights}: changed; reinstall" in done.output
        assert "0 of 1 files" in done.output
        weights.unlink()
        assert "No such file" in run.invoke(genzoo_cli.verify, words, standalone_mode=False).output
    assert "No such option" in run.invoke(genzoo_cli.verify, ["--token", "x"]).output


def test_what_does_not_fit_is_found_by_pull(hub: Hub) -> None:
    made = build(default_zoo(), small_card(options={"steps": 2})).eval()
    with torch.no_grad():
        next(made.parameters()).fill_(float("nan"))
    made.save_pretrained("broken")
    genzoo(hub.endpoint, "push", "broken", "--repo", "me/broken", "--no-samples", code=2)
    upload(made, "me/broken", endpoint=hub.endpoint, token=TOKEN, samples=False)
    said = genzoo(hub.endpoint, "pull", "hf:me/broken", code=2)
    assert "NaN or infinity" in said


def test_every_bad_name_has_its_own_line(hub: Hub) -> None:
    hub.repo("me/empty", {"notes.txt": b"x"})
    hub.repo("me/gated", {"config.json": b"{}"}).gated = True
    told = {
        genzoo(hub.endpoint, "pull", name, code=2, **environment).strip()
        for name, environment in (
            ("hf:me/nothing", {}),
            ("hf:me/empty@v9", {}),
            ("hf:me/empty/sub", {}),
            ("hf:me/empty", {}),
            ("hf:me/gated", {}),
            ("hf:me/else", {"HF_HUB_OFFLINE": "1"}),
            ("hf:me", {}),
        )
    }
    assert len(told) == 7
    hub.faults = [Fault("/api/models/", 429)]
    assert "429" in genzoo(hub.endpoint, "pull", "hf:me/empty", code=2)
    assert "cannot be reached" in genzoo(closed_port(), "pull", "hf:me/empty", code=2)
    left = [path for path in Path("home").rglob("*") if path.is_file() and path.name.endswith((".incomplete", ".part"))]
    assert not left
