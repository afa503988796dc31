"""The lock file: what was pulled, and must be found again."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from genzoo.digests import cache_folder
from genzoo.errors import WeightsError, is_newer, newer
from genzoo.files import READ_ONLY, open_regular, sha256_of, write_whole
from genzoo.formats import MAX_FILES
from genzoo.hub.errors import HubError
from genzoo.hub.places import COMMIT, Access, Listing, Place, proper

LOCK_FILE = "genzoo.lock"

#: The version of the file that is written and read.
VERSION = 1


class Lock:
    """What was pulled: repository and revision -> commit, and each file's sha256. Later pulls must match it.

    A ``genzoo.lock`` in the working folder is used where there is one, else one in the cache.

    Attributes:
        path: the lock file.
        entries: "owner/repo@revision" -> commit, names of the files with what the Hub promised of them, pinned files.
        kept: whether all that was pinned here is in the lock file.
    """

    def __init__(self, path: Path, guard: Path) -> None:
        self.path, self._guard = path, guard
        self.entries, self.kept = self._read(), True

    @classmethod
    def find(cls, cache: Path) -> Lock:
        """The lock file that counts here."""
        local = Path(LOCK_FILE)
        # Two processes take turns by a file of the cache, or of the user's own where the cache may only be read.
        guards = cache if not cache.exists() or os.access(cache, os.W_OK) else cache_folder()
        return cls(local if local.exists() else cache / LOCK_FILE, guards / ".locks" / LOCK_FILE)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        with open_regular(self.path, WeightsError) as file:
            raw = file.read(1 << 26)
        if not raw:
            return {}
        try:
            read = json.loads(raw)
            if is_newer(version := read["version"], VERSION):
                raise HubError("lock", f"{self.path}: version {newer(version, VERSION)}")
            entries = read["entries"]
            good = version == VERSION and all(_valid(*entry) for entry in entries.items())
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise HubError(
                "lock", f"{self.path}: not a lock file of genzoo; mend it, or remove it to pull everything anew"
            )
        return dict(entries)

    @staticmethod
    def key(place: Place) -> str:
        return f"{place.repo}@{place.revision or 'main'}"

    def listing(self, place: Place) -> Listing | None:
        """What an earlier pull of this repository and revision found."""
        entry = self.entries.get(self.key(place))
        return Listing(entry["commit"], entry["names"]) if entry else None

    def digest(self, place: Place, commit: str, name: str) -> str:
        """The pinned digest of a file, or ""."""
        entry = self.entries.get(self.key(place))
        pinned = entry["files"].get(name, "") if entry and entry["commit"] == commit else ""
        return f"sha256:{pinned}" if pinned else ""

    def record(self, place: Place, listing: Listing, name: str, sha256: str, *, fetched: bool = True) -> None:
        """Pin a file that was checked.

        One that was in the cache before, and not ``fetched``, is used without a pin where the lock file may only be
        read: nobody pulled it just now.
        """
        if self.digest(place, listing.commit, name) == f"sha256:{sha256}":
            return
        try:
            self._guard.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(self._guard):
                self.entries = self._read()  # another process may have written meanwhile
                self._pin(place, listing, name, sha256)
                body = {"version": VERSION, "entries": self.entries}
                write_whole(self.path, json.dumps(body, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            if error.errno in READ_ONLY and not fetched:
                self.kept = False
                self._pin(place, listing, name, sha256)  # for this process
                warnings.warn(
                    f"{place}: not pinned, for {self.path} cannot be written; an empty {LOCK_FILE} in the working "
                    "folder takes the pins",
                    stacklevel=2,
                )
                return
            raise HubError(
                "lock",
                f"{self.path}: cannot be written ({error.strerror}), and what is pulled is pinned there; pass another "
                "cache_dir",
            ) from None

    def _pin(self, place: Place, listing: Listing, name: str, sha256: str) -> None:
        entry = self.entries.get(self.key(place))
        if entry is None or entry["commit"] != listing.commit:
            entry = {"commit": listing.commit, "names": dict(listing.digests), "files": {}}
        entry["files"][name] = sha256
        self.entries[self.key(place)] = entry


def _valid(key: str, entry: Any) -> bool:
    names, files = entry["names"], entry["files"]
    return (
        proper(key)
        and bool(COMMIT.fullmatch(entry["commit"]))
        and len(names) <= MAX_FILES
        and all(proper(name) and isinstance(promise, str) for name, promise in names.items())
        and all(proper(name) and re.fullmatch(r"[0-9a-f]{64}", value) for name, value in files.items())
    )


def verify(lock: Lock, cache: Path) -> Iterator[tuple[str, str, str]]:
    """Check every pinned file again: (place, file, state), with state "good", "absent" or "changed"."""
    for key, entry in sorted(lock.entries.items()):
        repo = key.partition("@")[0]
        for name, pinned in sorted(entry["files"].items()):
            path = Access(cache).folder(repo) / "snapshots" / entry["commit"] / name
            if not path.exists():
                yield key, name, "absent"
                continue
            # Read, not remembered: this is the command for those who doubt.
            yield key, name, "good" if sha256_of(path, WeightsError) == pinned else "changed"
