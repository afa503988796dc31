"""The files of a repository: each is fetched once, at one commit, and compared with what was promised."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from genzoo.digests import digest
from genzoo.errors import WeightsError
from genzoo.files import FULL, open_regular, write_whole
from genzoo.formats import Files
from genzoo.hub.errors import HubError, explained, no_space
from genzoo.hub.lock import Lock
from genzoo.hub.places import COMMIT, Access, Listing, Place

#: How often a listing, or the particulars of a file, are asked for.
ATTEMPTS = 2

T = TypeVar("T")


def patience() -> float:
    """Seconds to wait for one of these, as HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT say; 10 by default."""
    return max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT)


def insistent(ask: Callable[[], T]) -> T:
    """The answer to a small question, asked again where the connection fails."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(httpx.TransportError):
            return ask()
    return ask()


class HubFiles(Files):
    """The files of a repository at one commit. Each is fetched once, and compared with what was promised."""

    def __init__(self, place: Place, listing: Listing, access: Access, lock: Lock) -> None:
        self.place, self.listing, self.access, self.lock = place, listing, access, lock
        self.source = str(place)
        self.title = (place.folder or place.repo).rpartition("/")[2]
        inside = f"{place.folder}/" if place.folder else ""
        self.names = tuple(sorted(n.removeprefix(inside) for n in listing.digests if n.startswith(inside)))
        if not self.names:
            raise HubError(
                "file", f"{place}: there is no folder {place.folder!r} in it; leave it out, or mend the name"
            )
        self._inside = inside

    def path(self, name: str) -> Path:
        full = self._inside + name
        if full not in self.listing.digests:
            raise HubError("file", f"{self.source}: there is no file {name!r} in it")
        # What is here is used without asking anybody: the commit says which content is meant.
        path = self._home / "snapshots" / self.listing.commit / full
        here = path.exists()
        if not here:
            self._fetch(full)
        real = path.resolve()
        if not self.access.holds(self.place.repo, real):
            raise WeightsError(f"{path}: a link that leaves the cache; remove it, and pull again")
        found = self._check(full, path, real)
        self.lock.record(self.place, self.listing, full, found, fetched=not here)
        return path

    @property
    def _home(self) -> Path:
        return self.access.folder(self.place.repo)

    def _fetch(self, full: str) -> None:
        if self.access.offline:
            raise HubError("offline", f"{self.source}: {full} is not in the cache; go online once to fetch it")
        with explained(self.place, self.access), warnings.catch_warnings():
            # Said on one line when it happens, and not as a warning before.
            warnings.filterwarnings("ignore", "Not enough free disk space")
            size = self._probe(full)
            try:
                hf_hub_download(
                    self.place.repo,
                    full,
                    revision=self.listing.commit,
                    cache_dir=self.access.cache,
                    token=self.access.token,
                    endpoint=self.access.endpoint,
                    etag_timeout=patience(),
                    library_name="genzoo",
                )
            except OSError as error:
                if error.errno in FULL:
                    raise no_space(self.place, self.access, f"{full} needs {size} bytes") from None
                raise
            self._name_commit()

    def _name_commit(self) -> None:
        """Note which commit the branch or tag is at, where the cache does not know: other programs look there."""
        revision = self.place.revision or "main"
        if not COMMIT.fullmatch(revision) and not (ref := self._home / "refs" / revision).exists():
            with contextlib.suppress(OSError):  # they can ask the Hub
                write_whole(ref, self.listing.commit)

    def _probe(self, full: str) -> int | None:
        """A file's size. The client itself would ask a Hub that stalls for minutes."""
        url = hf_hub_url(self.place.repo, full, revision=self.listing.commit, endpoint=self.access.endpoint)
        return insistent(
            lambda: (
                get_hf_file_metadata(
                    url,
                    token=self.access.token,
                    timeout=patience(),
                    endpoint=self.access.endpoint,
                    library_name="genzoo",
                ).size
            )
        )

    def _check(self, full: str, path: Path, real: Path) -> str:
        """The file's sha256; a file that is not the promised one is put aside, so that it is fetched anew next time."""
        with open_regular(real, WeightsError) as file:
            found = digest(file)
            promised = [self.lock.digest(self.place, self.listing.commit, full), self.listing.digests[full]]
            for promise in filter(None, promised):
                kind, _, value = promise.partition(":")
                if value != (found if kind == "sha256" else _git_blob(file)):
                    break
            else:
                return found
        aside = self._home / "quarantine"
        try:
            aside.mkdir(exist_ok=True)
            os.replace(real, aside / found)
            path.unlink(missing_ok=True)
            way = "it is put aside, so run the command again to fetch it anew"
        except OSError:
            way = f"it cannot be put aside, for {aside} cannot be written; pass another cache_dir"
        raise HubError(
            "changed",
            f"{self.source}: {full} is sha256:{found}, not {promise} as promised: it was changed on the way or in the "
            f"cache; {way}",
        )


def _git_blob(file: Any) -> str:
    """The name that git gives a content: the sha1 of "blob", its size and the content."""
    size = os.fstat(file.fileno()).st_size
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()
