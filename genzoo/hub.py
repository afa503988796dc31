"""The Hugging Face Hub: repositories as files, fetched once, at one commit, checked, and never run."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock, httpx  # type: ignore[attr-defined]

from genzoo.digests import digest
from genzoo.errors import GenzooError, WeightsError
from genzoo.files import open_regular, write_whole
from genzoo.formats import MAX_FILES, Files

LOCK_FILE = "genzoo.lock"

#: Seconds to wait for a listing, or for the particulars of a file.
TIMEOUT = 10.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(@(?P<revision>refs/[A-Za-z]+/[\w.-]+|[\w.-]+))?(/(?P<folder>[\w.-]+(/[\w.-]+)*))?/?",
    re.ASCII,
)

#: What kept a file from being had.
Cause = Literal[
    "name",
    "missing",
    "gated",
    "forbidden",
    "unauthorised",
    "revision",
    "file",
    "offline",
    "unreachable",
    "timeout",
    "busy",
    "server",
    "redirect",
    "cut",
    "answer",
    "changed",
    "disk",
    "lock",
    "http",
]


class HubError(GenzooError):
    """A repository or file that cannot be had; the message says why and what to do.

    Attributes:
        cause: which of the reasons it is.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Place:
    """A place on the Hub: ``hf:owner/repo[@revision][/folder]``."""

    repo: str
    revision: str | None = None
    folder: str = ""

    @classmethod
    def parse(cls, name: str, revision: str | None = None) -> Place:
        """The place that ``name`` says; a revision may stand in it or beside it, not both."""
        found = _PLACE.fullmatch(name)
        if not found or ".." in name.split("/"):
            raise HubError("name", f"{name[:120]!r} is no place on the Hub; write hf:owner/repo[@revision][/folder]")
        if revision is not None and found["revision"]:
            raise HubError("name", f"{name}: a revision stands in the name and beside it; give one")
        given = revision or found["revision"]
        if given is not None and not re.fullmatch(r"[\w./-]{1,200}", given, re.ASCII):
            raise HubError("name", f"revision {given[:80]!r} is no branch, tag or commit")
        return cls(found["repo"], given, found["folder"] or "")

    def __str__(self) -> str:
        return (
            f"hf:{self.repo}"
            + (f"@{self.revision}" if self.revision else "")
            + (f"/{self.folder}" if self.folder else "")
        )


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        digests: name -> "sha256:..." or "git:..." (a git blob's sha1), or "" where nothing is known beforehand.
    """

    commit: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Access:
    """How the Hub is reached.

    Attributes:
        cache: the folder of downloads.
        token: a token, True to demand the stored one, False to send none, None for the stored one if there is one.
        offline: use what is in the cache, and no network.
        endpoint: another Hub, as a mirror.
    """

    cache: Path
    token: str | bool | None = None
    offline: bool = False
    endpoint: str | None = None


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
        home = self.access.cache / _repo_folder(self.place.repo)
        real = path.resolve()
        if not real.is_relative_to(home.resolve()):
            raise WeightsError(f"{path}: a link that leaves the cache; remove it, and pull again")
        found = self._check(full, path, real)
        self.lock.record(self.place, self.listing, full, found)
        return path

    def _fetch(self, full: str) -> Path:
        # What is here is used without asking anybody: the commit says which content is meant.
        local = self.access.cache / _repo_folder(self.place.repo) / "snapshots" / self.listing.commit / full
        if local.exists():
            return local
        if self.access.offline:
            raise HubError("offline", f"{self.source}: {full} is not in the cache; go online once to fetch it")
        with explained(self.place, self.access):
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
        aside = self.access.cache / _repo_folder(self.place.repo) / "quarantine"
        aside.mkdir(exist_ok=True)
        os.replace(real, aside / found)
        path.unlink(missing_ok=True)
        raise HubError(
            "changed",
            f"{self.source}: {full} is sha256:{found}, not {promise} as promised: it was changed on the way or in the "
            "cache; it is put aside, so run the command again to fetch it anew",
        )


class Lock:
    """What was pulled: repository and revision -> commit, and each file's sha256. Later pulls must match it.

    A ``genzoo.lock`` in the working folder is used where there is one, else one in the cache.
    """

    def __init__(self, path: Path, guard: Path) -> None:
        self.path, self._guard = path, guard
        self.entries = self._read()

    @classmethod
    def find(cls, cache: Path) -> Lock:
        """The lock file that counts here."""
        local = Path(LOCK_FILE)
        return cls(local if local.exists() else cache / LOCK_FILE, cache / ".locks" / "genzoo.lock")

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        with open_regular(self.path, WeightsError) as file:
            raw = file.read(1 << 26)
        if not raw:
            return {}
        try:
            read = json.loads(raw)
            entries = read["entries"]
            good = read["version"] == 1 and all(_valid(entry) for entry in entries.values())
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

    def record(self, place: Place, listing: Listing, name: str, sha256: str) -> None:
        """Pin a file that was fetched and checked."""
        if self.digest(place, listing.commit, name) == f"sha256:{sha256}":
            return
        try:
            self._guard.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(self._guard):
                self.entries = self._read()  # another process may have written meanwhile
                entry = self.entries.get(self.key(place))
                if entry is None or entry["commit"] != listing.commit:
                    entry = {"commit": listing.commit, "names": dict(listing.digests), "files": {}}
                entry["files"][name] = sha256
                self.entries[self.key(place)] = entry
                write_whole(
                    self.path, json.dumps({"version": 1, "entries": self.entries}, indent=1, sort_keys=True) + "\n"
                )
        except OSError as error:
            raise HubError(
                "lock", f"{self.path}: cannot be written: {error.strerror}; what is pulled is pinned there"
            ) from None


def _valid(entry: Any) -> bool:
    names, files = entry["names"], entry["files"]
    return (
        bool(_COMMIT.fullmatch(entry["commit"]))
        and len(names) <= MAX_FILES
        and all(_proper(name) and isinstance(promise, str) for name, promise in names.items())
        and all(re.fullmatch(r"[0-9a-f]{64}", value) for value in files.values())
    )


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
            info = api.model_info(place.repo, revision=place.revision, files_metadata=True, timeout=TIMEOUT)
            commit, siblings = str(info.sha), list(info.siblings or [])
            listed = {s.rfilename: _promise(s) for s in siblings[:MAX_FILES] if _proper(s.rfilename)}
    except HubError as error:
        if error.cause not in ("unreachable", "timeout"):
            raise
        with contextlib.suppress(HubError):
            return _cached(place, access)
        raise
    if not _COMMIT.fullmatch(commit) or not listed:
        raise _answer(place)
    if place.revision and _COMMIT.fullmatch(place.revision) and place.revision != commit:
        raise HubError("answer", f"{place}: the answer is of another commit, {commit}; the endpoint cannot be trusted")
    return Listing(commit, listed)


def _cached(place: Place, access: Access) -> Listing:
    """What the cache holds of a repository."""
    folder = access.cache / _repo_folder(place.repo)
    commit = place.revision or "main"
    if not _COMMIT.fullmatch(commit):
        try:
            with open_regular(folder / "refs" / commit) as file:
                commit = file.read(100).decode("ascii", "replace").strip()
        except GenzooError:
            commit = ""
    snapshot = folder / "snapshots" / commit
    names = (
        [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
        if _COMMIT.fullmatch(commit)
        else []
    )
    if not names:
        raise HubError("offline", f"{place}: not in the cache, and there is no network to fetch it; go online once")
    return Listing(commit, dict.fromkeys(names, ""))


def _promise(sibling: Any) -> str:
    lfs = getattr(sibling, "lfs", None)
    if lfs is not None and re.fullmatch(r"[0-9a-f]{64}", str(lfs.sha256)):
        return f"sha256:{lfs.sha256}"
    blob = str(getattr(sibling, "blob_id", None) or "")
    return f"git:{blob}" if _COMMIT.fullmatch(blob) else ""


def _proper(name: str) -> bool:
    """Whether a file's name is one that stays in its folder and can be shown."""
    parts = name.split("/")
    return name.isprintable() and len(name) <= 300 and "\\" not in name and not {"", ".", ".."} & set(parts)


def _git_blob(file: Any) -> str:
    """The name that git gives a content: the sha1 of "blob", its size and the content."""
    size = os.fstat(file.fileno()).st_size
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


def _repo_folder(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def _answer(place: Place) -> HubError:
    return HubError(
        "answer",
        f"{place}: the answer is not the Hub's, but perhaps a login page of this network, or a wrong HF_ENDPOINT; "
        "open a web page to see, and try again",
    )


@contextlib.contextmanager
def explained(place: Place, access: Access) -> Iterator[None]:
    """Errors of the Hub's client inside the block become a HubError each, of one line, without any token."""
    try:
        yield
    except GenzooError:
        raise
    except HFValidationError:
        raise HubError("name", f"{place}: no valid name of a repository; write hf:owner/repo") from None
    except OfflineModeIsEnabled:
        raise HubError("offline", f"{place}: HF_HUB_OFFLINE is set, and the cache does not hold it; unset it") from None
    except LocalTokenNotFoundError:
        raise HubError("unauthorised", f"{place}: no token is stored; run hf auth login, or set HF_TOKEN") from None
    except Exception as error:
        # The client wraps some causes in a FileNotFoundError; the first that says something counts.
        found: BaseException | None = error
        for _ in range(8):
            told = _told(found, place, access) if found is not None else None
            if told is not None:
                raise told from None
            found = (found.__cause__ or found.__context__) if found is not None else None
        raise HubError("http", f"{place}: could not be fetched ({type(error).__name__}); try again") from None


def _told(error: BaseException, place: Place, access: Access) -> HubError | None:
    """What one error of the client means, or None where it only wraps another."""
    page = f"https://huggingface.co/{place.repo}"
    if isinstance(error, GatedRepoError):
        return HubError("gated", f"{place}: gated: accept its terms at {page}, then run hf auth login (or pass token=)")
    if isinstance(error, RepositoryNotFoundError):
        more = "mend the name" if access.token else "mend the name, or run hf auth login if it is private"
        return HubError("missing", f"{place}: no such repository, or not for you to see; {more}")
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            "revision", f"{place}: no revision {place.revision or 'main'!r}; its branches and tags are at {page}"
        )
    if isinstance(error, EntryNotFoundError) and isinstance(error, HfHubHTTPError):
        return HubError("file", f"{place}: a file of it is missing on the Hub; pull again with --update")
    if isinstance(error, httpx.TimeoutException):
        return HubError(
            "timeout", f"{place}: the Hub did not answer in time; try again, or set HF_HUB_DOWNLOAD_TIMEOUT higher"
        )
    if isinstance(error, httpx.ConnectError):
        return HubError(
            "unreachable", f"{place}: the Hub cannot be reached; check the network, or use what is in the cache"
        )
    if isinstance(error, httpx.TooManyRedirects):
        return HubError(
            "redirect", f"{place}: the Hub redirects without end; check HF_ENDPOINT and the network's proxy"
        )
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return HubError("cut", f"{place}: the connection was cut; run it again, and what was fetched is kept")
    if isinstance(error, httpx.DecodingError) or (isinstance(error, ValueError) and not isinstance(error, OSError)):
        return _answer(place)
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubError("cut", f"{place}: a file came with another size than was announced; run it again")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return _status(status, place)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError("disk", f"{place}: no space left in {access.cache}; free some, or pass another cache_dir")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return HubError(
            "disk", f"{place}: {access.cache} cannot be written; pass another cache_dir, or set HF_HUB_CACHE"
        )
    if type(error).__name__ == "FileMetadataError":
        return _answer(place)
    return None


def _status(status: int, place: Place) -> HubError | None:
    if status == 401:
        return HubError("unauthorised", f"{place}: the token is not accepted (401); run hf auth login with a valid one")
    if status == 403:
        return HubError("forbidden", f"{place}: forbidden (403): the token may not read it; use one with read access")
    if status == 404:
        return HubError("missing", f"{place}: not found (404); mend the name")
    if status == 408:
        return HubError("timeout", f"{place}: the Hub gave up waiting (408); try again")
    if status == 429:
        return HubError(
            "busy", f"{place}: too many requests (429); wait some minutes, or run hf auth login for a higher limit"
        )
    if status >= 500:
        return HubError("server", f"{place}: the Hub has a fault ({status}); try again later")
    if status >= 400:
        return HubError("http", f"{place}: refused with status {status}; see https://huggingface.co/{place.repo}")
    return None


def verify(lock: Lock, cache: Path) -> Iterator[tuple[str, str, str]]:
    """Check every pinned file again: (place, file, state), with state "good", "absent" or "changed"."""
    for key, entry in sorted(lock.entries.items()):
        repo = key.partition("@")[0]
        for name, pinned in sorted(entry["files"].items()):
            path = cache / _repo_folder(repo) / "snapshots" / entry["commit"] / name
            if not path.exists():
                yield key, name, "absent"
                continue
            with open_regular(path, WeightsError) as file:
                # Read, not remembered: this is the command for those who doubt.
                found = hashlib.file_digest(file, "sha256").hexdigest()
            yield key, name, "good" if found == pinned else "changed"
