"""Places on the Hub, how it is reached, and what it lists there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genzoo.hub.errors import HubError

COMMIT = re.compile(r"[0-9a-f]{40}")
_PLACE = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(@(?P<revision>refs/[A-Za-z]+/[\w.-]+|[\w.-]+))?(/(?P<folder>[\w.-]+(/[\w.-]+)*))?/?",
    re.ASCII,
)


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
        if given is not None and not (re.fullmatch(r"[\w./-]{1,200}", given, re.ASCII) and proper(given)):
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

    def folder(self, repo: str) -> Path:
        """Where the cache keeps a repository, as every program that uses the Hub's own cache does."""
        return self.cache / f"models--{repo.replace('/', '--')}"

    def holds(self, repo: str, real: Path) -> bool:
        """Whether a real path lies where the cache keeps that repository.

        That is its own folder, or the store that all share: since 2.4 the Hub's client puts one copy of each content
        there, and links to it.
        """
        return any(real.is_relative_to(home.resolve()) for home in (self.folder(repo), self.cache / "blobs"))


def proper(name: str) -> bool:
    """Whether a file's name is one that stays in its folder and can be shown."""
    parts = name.split("/")
    return name.isprintable() and len(name) <= 300 and "\\" not in name and not {"", ".", ".."} & set(parts)
