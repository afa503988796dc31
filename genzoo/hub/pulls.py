"""Pulling: from a name to the files of a repository at one commit."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants

from genzoo.errors import GenzooError
from genzoo.files import open_regular
from genzoo.formats import MAX_FILES
from genzoo.hub import files as hub_files
from genzoo.hub.errors import HubError, answer, explained
from genzoo.hub.files import HubFiles
from genzoo.hub.lock import Lock
from genzoo.hub.places import COMMIT, Access, Listing, Place, proper


def pull(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    endpoint: str | None = None,
    update: bool = False,
) -> HubFiles:
    """The files of a repository, at one commit; none is fetched yet.

    Args:
        name: ``hf:owner/repo[@revision][/folder]``.
        revision: a branch, tag or commit, in place of one in the name.
        cache_dir: where downloads are kept; by default the Hub's own cache (HF_HOME, HF_HUB_CACHE).
        local_files_only: use what is there, and no network.
        token: as in ``huggingface_hub``; by default the stored one, or HF_TOKEN.
        endpoint: another Hub; by default HF_ENDPOINT.
        update: ask which commit the revision is at now, rather than go on with the one that was pulled before.

    Raises:
        HubError: says which of many reasons it is, and what to do.
    """
    place = Place.parse(name, revision)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    access = Access(Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute(), token, offline, endpoint)
    lock = Lock.find(access.cache)
    listing = None if update and not offline else lock.listing(place)
    if listing is None:
        listing = _cached(place, access) if offline else _ask(place, access)
    return HubFiles(place, listing, access, lock)


def _ask(place: Place, access: Access) -> Listing:
    """The commit and files of a repository, from the Hub; from the cache where the Hub cannot be reached."""
    try:
        with explained(place, access):
            api = HfApi(endpoint=access.endpoint, token=access.token, library_name="genzoo")
            info = hub_files.insistent(
                lambda: api.model_info(
                    place.repo, revision=place.revision, files_metadata=True, timeout=hub_files.patience()
                )
            )
            commit, siblings = str(info.sha), list(info.siblings or [])
            listed = {s.rfilename: _promise(s) for s in siblings[:MAX_FILES] if proper(s.rfilename)}
    except HubError as error:
        if error.cause not in ("unreachable", "timeout"):
            raise
        with contextlib.suppress(HubError):
            return _cached(place, access)
        raise
    if not COMMIT.fullmatch(commit) or not listed:
        raise answer(place)
    if place.revision and COMMIT.fullmatch(place.revision) and place.revision != commit:
        raise HubError("answer", f"{place}: the answer is of another commit, {commit}; the endpoint cannot be trusted")
    return Listing(commit, listed)


def _cached(place: Place, access: Access) -> Listing:
    """What the cache holds of a repository."""
    folder = access.folder(place.repo)
    commit = place.revision or "main"
    if not COMMIT.fullmatch(commit):
        try:
            with open_regular(folder / "refs" / commit) as file:
                commit = file.read(100).decode("ascii", "replace").strip()
        except GenzooError:
            commit = ""
    snapshot = folder / "snapshots" / commit
    found = (p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file())
    names = list(itertools.islice(filter(proper, found), MAX_FILES)) if COMMIT.fullmatch(commit) else []
    if not names:
        raise HubError("offline", f"{place}: not in the cache, and there is no network to fetch it; go online once")
    return Listing(commit, dict.fromkeys(names, ""))


def _promise(sibling: Any) -> str:
    lfs = getattr(sibling, "lfs", None)
    if lfs is not None and re.fullmatch(r"[0-9a-f]{64}", str(lfs.sha256)):
        return f"sha256:{lfs.sha256}"
    blob = str(getattr(sibling, "blob_id", None) or "")
    return f"git:{blob}" if COMMIT.fullmatch(blob) else ""
