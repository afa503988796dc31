"""The files of a repository: each is fetched once, at one commit, and compared with what was promised."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from genzoo.digests import digest
from genzoo.errors import WeightsError
from genzoo.files import open_regular
from genzoo.formats import Files
from genzoo.hub.errors import HubError, explained
from genzoo.hub.lock import Lock
from genzoo.hub.places import Access, Listing, Place

#: Seconds to wait for a listing, or for the particulars of a file.
TIMEOUT = 10.0

#: How often the particulars of a file are asked for.
ATTEMPTS = 2


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
        path = self._fetch(full)
        home = self.access.folder(self.place.repo)
        real = path.resolve()
        if not real.is_relative_to(home.resolve()):
            raise WeightsError(f"{path}: a link that leaves the cache; remove it, and pull again")
        found = self._check(full, path, real)
        self.lock.record(self.place, self.listing, full, found)
        return path

    def _fetch(self, full: str) -> Path:
        # What is here is used without asking anybody: the commit says which content is meant.
        local = self.access.folder(self.place.repo) / "snapshots" / self.listing.commit / full
        if local.exists():
            return local
        if self.access.offline:
            raise HubError("offline", f"{self.source}: {full} is not in the cache; go online once to fetch it")
        with explained(self.place, self.access):
            self._probe(full)
            return Path(
                hf_hub_download(
                    self.place.repo,
                    full,
                    revision=self.listing.commit,
                    cache_dir=self.access.cache,
                    token=self.access.token,
                    endpoint=self.access.endpoint,
                    etag_timeout=TIMEOUT,
                    library_name="genzoo",
                )
            )

    def _probe(self, full: str) -> None:
        """Ask for a file's particulars: the client itself would ask a Hub that stalls for minutes."""
        url = hf_hub_url(self.place.repo, full, revision=self.listing.commit, endpoint=self.access.endpoint)
        for left in reversed(range(ATTEMPTS)):
            try:
                get_hf_file_metadata(
                    url, token=self.access.token, timeout=TIMEOUT, endpoint=self.access.endpoint, library_name="genzoo"
                )
            except httpx.TransportError:
                if not left:
                    raise
            else:
                return

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
        aside = self.access.folder(self.place.repo) / "quarantine"
        aside.mkdir(exist_ok=True)
        os.replace(real, aside / found)
        path.unlink(missing_ok=True)
        raise HubError(
            "changed",
            f"{self.source}: {full} is sha256:{found}, not {promise} as promised: it was changed on the way or in the "
            "cache; it is put aside, so run the command again to fetch it anew",
        )


def _git_blob(file: Any) -> str:
    """The name that git gives a content: the sha1 of "blob", its size and the content."""
    size = os.fstat(file.fileno()).st_size
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()
