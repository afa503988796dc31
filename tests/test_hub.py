"""Pulling from a Hub that behaves, and from one that does not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import small
import torch
from hub_server import Fault, Hub, closed_port
from mounts import read_only, small_disk

import genzoo.hub.files
from genzoo.cards import Card
from genzoo.errors import WeightsError
from genzoo.formats import FormatError, LocalFiles, recognise
from genzoo.hub import HubError, Lock, Place, pull, verify
from genzoo.registry import default_zoo
from genzoo.tensors import write
from genzoo.weights import build

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_" + "Secret" * 6


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the user's: no cache, no token, no patience."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.4)
    monkeypatch.setattr(huggingface_hub.file_download, "_ETAG_RETRY_TIMEOUT", 0.4)
    patient = types.SimpleNamespace(**{**vars(huggingface_hub.file_download.time), "sleep": lambda seconds: None})
    monkeypatch.setattr(huggingface_hub.file_download, "time", patient)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", patient)
    with small.apart(tmp_path, monkeypatch):
        yield


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model in genzoo's own layout."""
    folder = tmp_path_factory.mktemp("model")
    card = small.small_card()
    torch.manual_seed(0)
    asset = write(folder / "model.safetensors", build(default_zoo(), card).state_dict())
    card = card.model_copy(update={"weights": asset})
    config = {"library_name": "genzoo", "version": 1, "card": card.model_dump(mode="json", exclude_defaults=True)}
    return {
        "README.md": b"---\nlicense: mit\n---\n",
        "config.json": json.dumps(config).encode(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
    }


def ask(hub: Hub | str, name: str = "hf:me/small", **more: Any) -> genzoo.hub.HubFiles:
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    return pull(name, endpoint=endpoint, **{"cache_dir": "cache", **more})


def load(files: genzoo.hub.HubFiles) -> Card:
    return recognise(default_zoo(), files)[0]


def everything(hub: Hub) -> Card:
    """The model of a repository, and its README besides."""
    files = ask(hub, token=TOKEN)
    assert files.text("README.md")
    return load(files)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hf:google/ddpm-cifar10-32", Place("google/ddpm-cifar10-32")),
        ("hf:a/b@v1.0", Place("a/b", "v1.0")),
        ("hf:a/b@v1/unet", Place("a/b", "v1", "unet")),
        ("hf:a/b/unet/x", Place("a/b", None, "unet/x")),
        ("hf:a/b@refs/pr/3/unet", Place("a/b", "refs/pr/3", "unet")),
        ("hf:a/b/", Place("a/b")),
    ],
)
def test_places_are_read(name: str, wanted: Place) -> None:
    assert Place.parse(name) == wanted


NO_PLACES = ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b@", "hf:a/../b", "hf:a/b/../c", "hf:a/b@x/..", "hf:a b/c"]
NO_PLACES += ["hf:a/b\n", "hf:a/b?x=1", "hf:a/b@x y", "hf://a/b", "hf:a//b", "hf:ü/b", "hf:a/b@..", "hf:a/b@refs/x/.."]


@pytest.mark.parametrize("name", NO_PLACES)
def test_what_is_no_place_is_refused(name: str) -> None:
    with pytest.raises(HubError) as caught:
        Place.parse(name)
    assert caught.value.cause == "name"


def test_a_revision_is_given_once() -> None:
    assert Place.parse("hf:a/b", "v2").revision == "v2"
    with pytest.raises(HubError, match="give one"):
        Place.parse("hf:a/b@v1", "v2")


# -- a Hub that behaves ------------------------------------------------------------------------------------------------


def test_a_model_is_pulled_once_and_pinned(hub: Hub, model: dict[str, bytes]) -> None:
    repo = hub.repo("me/small", model)
    card, tensors = recognise(default_zoo(), ask(hub))
    assert card.name == "diffusion.small"
    assert tensors
    asked = len(hub.log)
    assert asked > 0
    load(ask(hub))
    load(ask(closed_port()))
    assert len(hub.log) == asked
    lock = json.loads(Path("cache/genzoo.lock").read_text())
    entry = lock["entries"]["me/small@main"]
    assert entry["commit"] == repo.refs["main"]
    assert set(entry["files"]) == {"config.json", "model.safetensors"}
    assert entry["files"]["model.safetensors"] == card.weights.sha256  # type: ignore[union-attr]
    assert [state for *_, state in verify(Lock.find(Path("cache").absolute()), Path("cache").absolute())] == [
        "good"
    ] * 2


def test_zoo_load_takes_a_place_on_the_hub(hub: Hub, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repo("me/small", {f"sub/{name}": content for name, content in model.items()})
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    address = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)
    loaded = default_zoo().load("hf:me/small/sub", cache_dir="cache")
    assert loaded.generate([1], steps=2).shape == (1, 3, 8, 8)


def test_a_branch_that_moves_is_followed_only_when_asked(hub: Hub, model: dict[str, bytes]) -> None:
    repo = hub.repo("me/small", model)
    first = ask(hub)
    load(first)
    second = repo.commit({**model, "README.md": b"new"})
    again = ask(hub)
    assert again.listing.commit == first.listing.commit
    assert again.text("README.md").startswith("---")
    updated = ask(hub, update=True)
    assert updated.listing.commit == second
    assert updated.text("README.md") == "new"
    assert ask(hub).listing.commit == second


def test_every_file_is_of_the_commit_that_was_asked_for_first(hub: Hub, model: dict[str, bytes]) -> None:
    repo = hub.repo("me/small", model)
    files = ask(hub)
    repo.commit({**model, "config.json": b"{}"})
    assert load(files).name == "diffusion.small"
    asked = {path.split("/resolve/")[1].split("/")[0] for _, path, _ in hub.log if "/resolve/" in path}
    assert asked == {files.listing.commit}


def test_tags_and_commits_name_revisions(hub: Hub, model: dict[str, bytes]) -> None:
    repo = hub.repo("me/small", model)
    repo.refs["v1"] = repo.refs["main"]
    repo.commit({"README.md": b"gone"})
    assert load(ask(hub, "hf:me/small@v1")).name == "diffusion.small"
    assert load(ask(hub, revision=repo.refs["v1"])).name == "diffusion.small"
    with pytest.raises(FormatError, match=r"no known layout.*genzoo: no config\.json"):
        load(ask(hub))


def test_a_lock_in_the_working_folder_goes_first(hub: Hub, model: dict[str, bytes]) -> None:
    Path("genzoo.lock").touch()
    hub.repo("me/small", model)
    load(ask(hub))
    assert "me/small@main" in Path("genzoo.lock").read_text()
    assert not Path("cache/genzoo.lock").exists()


ENTRY: dict[str, Any] = {"commit": "0" * 40, "names": {}, "files": {}}
LOCKS: list[Any] = [
    [],
    7,
    {"version": 1},
    {"version": 0, "entries": {}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "commit": "x"}}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "names": {"../x": ""}}}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "names": ["x"]}}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "files": {"x": "y"}}}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "files": {"../../x": "0" * 64}}}},
    {"version": 1, "entries": {"a/b@main": {**ENTRY, "files": {"x\x1b[31m": "0" * 64}}}},
    {"version": 1, "entries": {"a/\x1b[31m@main": ENTRY}},
]


@pytest.mark.parametrize("content", ["{", "[" * 100_000, *map(json.dumps, LOCKS)])
def test_a_damaged_lock_is_an_error(hub: Hub, content: str) -> None:
    Path("genzoo.lock").write_text(content)
    with pytest.raises(HubError, match="not a lock file") as caught:
        ask(hub)
    assert caught.value.cause == "lock"


def test_a_lock_of_a_newer_version_is_not_called_damaged(hub: Hub) -> None:
    Path("genzoo.lock").write_text('{"version": 2, "packages": []}')
    with pytest.raises(HubError, match=r"lock: version 2 is of a newer genzoo than .*; update genzoo$") as caught:
        ask(hub)
    assert caught.value.cause == "lock"


def test_a_token_is_sent_and_never_shown(hub: Hub, model: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    repo = hub.repo("me/small", model)
    repo.private = TOKEN
    load(ask(hub, token=TOKEN))
    assert {auth for _, _, auth in hub.log} == {f"Bearer {TOKEN}"}
    kept = [p.read_bytes() for p in Path().rglob("*") if p.is_file()]
    assert not any(TOKEN.encode() in content for content in kept)
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    for wrong in ("hf_wrong", None):
        with pytest.raises(HubError) as caught:
            ask(hub, token=wrong, cache_dir=f"other-{wrong}")
        assert caught.value.cause == "missing"
        assert TOKEN not in str(caught.value)


def test_offline_hits_and_misses(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    with pytest.raises(HubError, match="go online") as caught:
        ask(hub, local_files_only=True)
    assert caught.value.cause == "offline"
    load(ask(hub))
    assert load(ask(hub, local_files_only=True)).name == "diffusion.small"
    with pytest.raises(HubError, match=r"README\.md is not in the cache"):
        ask(hub, local_files_only=True).path("README.md")


def test_what_another_program_fetched_is_used_offline(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    huggingface_hub.snapshot_download("me/small", cache_dir="cache", endpoint=hub.endpoint)
    assert load(ask(closed_port(), local_files_only=True)).name == "diffusion.small"
    Path("cache/genzoo.lock").unlink()
    assert load(ask(closed_port())).name == "diffusion.small"  # asked in vain, then the cache


def test_a_cache_that_may_only_be_read_is_used(hub: Hub, model: dict[str, bytes]) -> None:
    """Another's cache, as a mounted volume: with its lock file, without one, and with one in the working folder."""
    hub.repo("me/small", model)
    load(ask(hub))
    with read_only(Path("cache")):
        assert load(ask(closed_port())).name == "diffusion.small"
        assert load(ask(hub, local_files_only=True)).name == "diffusion.small"
        with pytest.raises(HubError, match="cannot be written") as caught:
            ask(hub).path("README.md")
        assert caught.value.cause == "disk"
    Path("cache/genzoo.lock").unlink()
    with read_only(Path("cache")):
        for offline in (True, False):
            files = ask(hub, local_files_only=offline)
            with pytest.warns(UserWarning, match="not pinned"):
                assert load(files).name == "diffusion.small"
            assert not files.lock.kept
        Path("genzoo.lock").touch()
        assert load(ask(hub)).name == "diffusion.small"
        entry = json.loads(Path("genzoo.lock").read_text())["entries"]["me/small@main"]
        assert set(entry["files"]) == {"config.json", "model.safetensors"}
    blob = ask(hub).path("config.json").resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    with read_only(Path("cache")), pytest.raises(HubError, match="cannot be put aside") as caught:
        load(ask(hub))
    assert caught.value.cause == "changed"


@pytest.mark.filterwarnings("error")
def test_a_disk_without_space_is_told_with_what_is_needed(
    hub: Hub, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("me/small", model)
    files = ask(hub)
    full = OSError(errno.ENOSPC, "No space left on device")

    def download(*args: Any, **more: Any) -> None:
        warnings.warn("Not enough free disk space to download the file.", stacklevel=1)
        raise full

    monkeypatch.setattr(genzoo.hub.files, "hf_hub_download", download)
    with pytest.raises(HubError, match=f"no space left.*config.json needs {len(model['config.json'])} bytes") as caught:
        load(files)
    assert caught.value.cause == "disk"


def test_a_full_disk_leaves_what_was_there(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    size = len(model["model.safetensors"])
    with small_disk(Path("cache"), "150k"):
        with pytest.raises(HubError, match=f"no space left in .*cache .model.safetensors needs {size} bytes") as caught:
            load(ask(hub))
        assert caught.value.cause == "disk"
        before = Path("cache/genzoo.lock").read_bytes()
        with pytest.raises(HubError, match="no space left"):
            load(ask(hub))
        assert Path("cache/genzoo.lock").read_bytes() == before
        assert ask(hub, local_files_only=True).text("config.json").encode() == model["config.json"]
        assert not [path for path in Path("cache").rglob("*") if path.name.endswith(".part")]


def test_contents_that_all_repositories_share(hub: Hub, model: dict[str, bytes]) -> None:
    """The Hub's client keeps one copy of a large file's content beside the repositories, and links to it."""
    hub.repo("me/small", model)
    path = ask(hub).path("model.safetensors")
    load(ask(hub))
    blob = Path("cache/models--me--small/blobs") / os.path.basename(os.readlink(path))
    store = Path("cache/blobs/ab").absolute()
    store.mkdir(parents=True)
    blob.rename(store / ("ab" * 32))
    blob.symlink_to(Path("../../blobs/ab") / ("ab" * 32))
    assert path.resolve() == store / ("ab" * 32)
    assert load(ask(hub)).name == "diffusion.small"
    assert load(ask(hub, local_files_only=True)).name == "diffusion.small"
    assert recognise(default_zoo(), LocalFiles(path.parent))[0].name == "diffusion.small"
    shared = store / ("ab" * 32)
    shared.write_bytes(b"x" + shared.read_bytes()[1:])
    with pytest.raises(HubError, match="put aside"):
        load(ask(hub))
    assert load(ask(hub)).name == "diffusion.small"


def test_other_programs_find_what_was_pulled(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    load(ask(hub))
    found = huggingface_hub.try_to_load_from_cache("me/small", "config.json", cache_dir="cache")
    assert found is not None
    assert Path(str(found)).read_bytes() == model["config.json"]
    Path("cache/genzoo.lock").unlink()
    assert load(ask(closed_port(), local_files_only=True)).name == "diffusion.small"


@pytest.mark.parametrize("shown", [True, False])
def test_a_download_shows_its_progress_on_a_terminal(
    hub: Hub, model: dict[str, bytes], shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repo("me/small", model)
    files = ask(hub)
    huggingface_hub.utils.enable_progress_bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: shown)
    files.path("model.safetensors")
    said = capsys.readouterr()
    assert not said.out
    assert ("model.safetensors: 100%" in said.err) == shown
    files.path("model.safetensors")
    assert capsys.readouterr().err == ""


# -- one that does not -------------------------------------------------------------------------------------------------

#: kind -> (fault, the cause that must be told)
FAULTS: dict[str, tuple[Fault, str]] = {
    "401": (Fault("X", 401), "unauthorised"),
    "401 no repository": (Fault("X", 401, code="RepoNotFound"), "missing"),
    "403": (Fault("X", 403), "forbidden"),
    "403 gated": (Fault("X", 403, code="GatedRepo"), "gated"),
    "401 gated": (Fault("X", 401, code="GatedRepo"), "gated"),
    "404": (Fault("X", 404), "missing"),
    "404 no repository": (Fault("X", 404, code="RepoNotFound"), "missing"),
    "404 no revision": (Fault("X", 404, code="RevisionNotFound"), "revision"),
    "404 no file": (Fault("X", 404, code="EntryNotFound"), "file"),
    "408": (Fault("X", 408), "timeout"),
    "410": (Fault("X", 410), "http"),
    "418": (Fault("X", 418), "http"),
    "429": (Fault("X", 429), "busy"),
    "451": (Fault("X", 451), "http"),
    "500": (Fault("X", 500), "server"),
    "502": (Fault("X", 502), "server"),
    "503": (Fault("X", 503), "server"),
    "504": (Fault("X", 504), "server"),
    "loop": (Fault("X", "loop"), "redirect"),
    "html": (Fault("X", "html"), "answer"),
    "stall": (Fault("X", "stall"), "timeout"),
    "reset": (Fault("X", "reset"), "cut"),
    "short": (Fault("X", "short", method="GET"), "cut"),
    "long": (Fault("X", "long", method="GET"), "cut"),
    "corrupt": (Fault("X", "corrupt", method="GET"), "changed"),
    "same size page": (Fault("X", "samesize", method="GET"), "changed"),
    "reset of the body": (Fault("X", "reset", method="GET"), "cut"),
    "stall of the body": (Fault("X", "stall", method="GET"), "timeout"),
    "500 of the body": (Fault("X", 500, method="GET"), "server"),
    "loop of the body": (Fault("X", "loop", method="GET"), "redirect"),
}
WHERE = {"listing": "/api/models/", "settings": "/config.json$", "weights": "/model.safetensors$"}
WHERE |= {"text": "/README.md$"}
#: A listing has no size and no digest of its own to compare with, so these faults say nothing there.
NOT_IN_A_LISTING = {"long", "short", "corrupt", "same size page"}
FAST = {"401", "403 gated", "429", "503", "html", "corrupt", "loop", "short", "404 no file"}
CASES = [
    pytest.param(kind, where, marks=() if kind in FAST and where in ("listing", "weights") else pytest.mark.slow)
    for kind in FAULTS
    for where in WHERE
    if where != "listing" or kind not in NOT_IN_A_LISTING
]


@pytest.mark.parametrize(("kind", "where"), CASES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_fault_is_told_and_leaves_nothing_wrong(
    hub: Hub, model: dict[str, bytes], kind: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.repo("me/small", model)
    fault, cause = FAULTS[kind]
    hub.faults = [Fault(WHERE[where], fault.what, fault.method, fault.code)]
    with pytest.raises(HubError) as caught:
        everything(hub)
    message = str(caught.value)
    assert caught.value.cause == cause, message
    assert "hf:me/small" in message
    assert message.isprintable()
    assert TOKEN not in message + caplog.text
    hub.faults = []
    assert everything(hub).name == "diffusion.small"


def test_ninety_faults_of_files_are_tried() -> None:
    assert len(FAULTS) == 30
    assert sum(case.values[1] != "listing" for case in CASES) == 90


def test_a_hub_that_stalls_is_given_up_soon(hub: Hub, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client alone would ask again for minutes where it learns nothing of a file."""
    monkeypatch.setattr(huggingface_hub.file_download, "_ETAG_RETRY_TIMEOUT", 60)
    hub.repo("me/small", model)
    files = ask(hub)
    hub.faults, hub.stall = [Fault(WHERE["settings"], "stall")], 100.0
    began = time.monotonic()
    with pytest.raises(HubError, match="did not answer in time") as caught:
        load(files)
    assert caught.value.cause == "timeout"
    assert time.monotonic() - began < 20


def test_an_unreachable_hub_is_told(hub: Hub) -> None:
    with pytest.raises(HubError) as caught:
        ask(closed_port())
    assert caught.value.cause == "unreachable"


def test_a_redirect_is_followed(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    hub.faults = [Fault(r"^/me/small/resolve/.*model\.safetensors$", "redirect")]
    assert load(ask(hub)).name == "diffusion.small"


def test_a_passing_fault_is_overcome(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    hub.faults = [Fault(r"/model\.safetensors$", "short", method="GET", times=2)]
    hub.faults += [Fault(where, "reset", method="HEAD", times=1) for where in WHERE.values()]
    hub.faults.append(Fault(WHERE["listing"], "reset", times=1))
    assert load(ask(hub)).name == "diffusion.small"


def test_unknown_places_are_told_apart(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    for name, cause in (("hf:me/other", "missing"), ("hf:me/small@v9", "revision"), ("hf:me/small/sub", "file")):
        with pytest.raises(HubError) as caught:
            ask(hub, name)
        assert caught.value.cause == cause


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_cached_file_that_was_changed_is_put_aside(hub: Hub, model: dict[str, bytes], file: str) -> None:
    hub.repo("me/small", model)
    files = ask(hub)
    load(files)
    blob = files.path(file).resolve()
    raw = bytearray(blob.read_bytes())
    raw[len(raw) // 2] ^= 1
    blob.write_bytes(raw)
    with pytest.raises(HubError, match="put aside") as caught:
        load(ask(hub))
    assert caught.value.cause == "changed"
    assert list(Path("cache/models--me--small/quarantine").iterdir())
    assert load(ask(hub)).name == "diffusion.small"


def test_a_commit_whose_files_change_is_refused(hub: Hub, model: dict[str, bytes]) -> None:
    """A mirror that serves other bytes under the same commit, listing and all."""
    repo = hub.repo("me/small", model)
    load(ask(hub))
    commit = repo.refs["main"]
    repo.commits[commit]["README.md"] = b"first"
    ask(hub).lock.record(Place("me/small"), ask(hub).listing, "README.md", "0" * 64)
    with pytest.raises(HubError) as caught:
        ask(hub).path("README.md")
    assert caught.value.cause == "changed"


def test_links_out_of_the_cache_are_refused(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    files = ask(hub)
    load(files)
    path = files.path("model.safetensors")
    outside = Path("outside").absolute()
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(WeightsError, match="leaves the cache"):
        load(ask(hub))


def test_names_that_leave_their_folder_are_not_listed(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", {**model, "../../evil": b"x", "/etc/x": b"x", "a\\b": b"x", "x\x1b[31m": b"x", "a//b": b"x"})
    assert set(ask(hub).names) == set(model)


@pytest.mark.parametrize("sha", ["x", "0" * 39, "../" * 13 + "0", None])
def test_a_listing_without_a_commit_is_refused(hub: Hub, model: dict[str, bytes], sha: Any) -> None:
    repo = hub.repo("me/small", model)
    repo.commits[sha] = model
    repo.refs["main"] = sha
    with pytest.raises(HubError) as caught:
        ask(hub)
    assert caught.value.cause in ("answer", "revision")


def test_layouts_that_are_not_known_say_what_was_tried(hub: Hub) -> None:
    hub.repo("me/small", {"pytorch_model.bin": b"x"})
    with pytest.raises(FormatError, match="genzoo convert"):
        load(ask(hub))


def test_weights_of_another_library_are_not_fetched_to_be_recognised(hub: Hub) -> None:
    hub.repo("me/small", {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(10_000)})
    with pytest.raises(FormatError, match="no known layout"):
        load(ask(hub))
    assert not any("model.safetensors" in path for _, path, _ in hub.log)


def test_half_a_shard_and_a_missing_one(hub: Hub) -> None:
    index = {"weight_map": {"a": "d-1.safetensors", "b": "diffusion_pytorch_model-2.safetensors"}}
    files = {
        "config.json": b'{"_class_name": "UNet2DModel", "sample_size": 8}',
        "scheduler_config.json": b'{"_class_name": "DDPMScheduler"}',
        "diffusion_pytorch_model.safetensors.index.json": json.dumps(index).encode(),
        "d-1.safetensors": b"\x40\0\0\0\0\0\0\0{",
    }
    hub.repo("me/small", files)
    with pytest.raises(FormatError, match="1 of 2 shards are missing: diffusion_pytorch_model-2"):
        load(ask(hub))
    hub.repos["me/small"].commit({**files, "diffusion_pytorch_model-2.safetensors": b""})
    with pytest.raises(WeightsError, match="cut short"):
        load(ask(hub, update=True))


_PULL = """
import sys
from genzoo.hub import pull
from genzoo.formats import recognise
from genzoo.registry import default_zoo
import huggingface_hub
huggingface_hub.utils.disable_progress_bars()
for i in range(int(sys.argv[2])):
    card, tensors = recognise(default_zoo(), pull("hf:me/small", endpoint=sys.argv[1], cache_dir=f"cache{i}"))
    assert card.name == "diffusion.small" and tensors
print("good")
"""


def _race(hub: Hub, rounds: int) -> None:
    command = [sys.executable, "-c", _PULL, hub.endpoint, str(rounds)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=500)[0].strip() for process in both] == ["good", "good"]
    for i in range(rounds):
        lock = Lock(Path(f"cache{i}/genzoo.lock"), Path("guard"))
        assert [state for *_, state in verify(lock, Path(f"cache{i}"))] == ["good", "good"]
        assert not [p for p in Path(f"cache{i}").rglob("*") if p.name.endswith((".incomplete", ".part"))]


@pytest.mark.slow
def test_two_processes_pull_one_model(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    _race(hub, 50)


# -- hostile ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("method", [None, "GET"])
def test_a_redirect_elsewhere_takes_no_token_along(
    hub: Hub, model: dict[str, bytes], where: str, method: str | None
) -> None:
    hub.repo("me/small", model)
    with Hub() as other:
        other.repo("me/small", model)
        hub.faults = [Fault(WHERE[where], f"to:{other.endpoint}", method=method)]
        assert everything(hub).name == "diffusion.small"
        assert other.log
        assert not any(auth and TOKEN in auth for _, _, auth in other.log)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("scheme", ["file://", "gopher://x"])
def test_a_redirect_out_of_the_web_is_not_followed(hub: Hub, model: dict[str, bytes], where: str, scheme: str) -> None:
    hub.repo("me/small", model)
    hub.faults = [Fault(WHERE[where], f"to:{scheme}")]
    with pytest.raises(HubError, match="not of the web") as caught:
        everything(hub)
    assert caught.value.cause == "redirect"


@pytest.mark.parametrize("token", [TOKEN + "\nx", TOKEN + "\x00", TOKEN + "\u00fc"])
def test_a_token_that_cannot_be_sent_is_not_shown(hub: Hub, token: str) -> None:
    with pytest.raises(HubError, match="the token holds characters") as caught:
        ask(hub, token=token)
    assert caught.value.cause == "unauthorised"
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("body", ["{}", "[]", "null", "7", '{"id": 7}', '{"id": "me/small", "siblings": [1]}', "{", ""])
def test_a_listing_that_is_none_is_an_answer_of_somebody_else(hub: Hub, body: str) -> None:
    hub.faults = [Fault(WHERE["listing"], f"says:{body}")]
    with pytest.raises(HubError) as caught:
        ask(hub)
    assert caught.value.cause == "answer"


@pytest.mark.parametrize("part", ["snapshots", "blobs"])
def test_a_folder_of_the_cache_that_leads_elsewhere(hub: Hub, model: dict[str, bytes], part: str) -> None:
    """The right bytes, but not where only the cache's owner could put them."""
    hub.repo("me/small", model)
    files = ask(hub)
    load(files)
    home = Path("cache/models--me--small")
    folder = home / part / files.listing.commit if part == "snapshots" else home / part
    folder.rename("outside")
    if part == "snapshots":
        for name in ("config.json", "model.safetensors"):
            Path("outside", name).unlink()
            Path("outside", name).write_bytes(model[name])
    folder.symlink_to(Path("outside").absolute())
    with pytest.raises(WeightsError, match="leaves the cache"):
        load(ask(hub))


def test_a_snapshot_is_listed_without_following_its_links(hub: Hub, model: dict[str, bytes]) -> None:
    hub.repo("me/small", model)
    files = ask(hub)
    load(files)
    snapshot = files.path("config.json").parent
    (snapshot / "root").symlink_to("/")
    (snapshot / "loop").symlink_to(snapshot)
    (snapshot / "x\x1b[31m").write_bytes(b"x")
    os.mkfifo(snapshot / "pipe")
    Path("cache/genzoo.lock").unlink()
    offline = ask(hub, local_files_only=True)
    assert set(offline.names) == {"config.json", "model.safetensors"}
    for ref in ("../../../../../etc/passwd", "", "x" * 1000):
        Path("cache/models--me--small/refs/main").write_text(ref)
        Path("cache/genzoo.lock").unlink(missing_ok=True)
        with pytest.raises(HubError, match="not in the cache"):
            ask(hub, local_files_only=True)
