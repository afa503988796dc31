"""What keeps a file of the Hub from being had: one line each, with what to do, and never a token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

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
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from genzoo.errors import GenzooError
from genzoo.files import FULL, READ_ONLY

if TYPE_CHECKING:
    from genzoo.hub.places import Access, Place

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


def answer(place: Place) -> HubError:
    return HubError(
        "answer",
        f"{place}: the answer is not the Hub's, but perhaps a login page of this network, or a wrong HF_ENDPOINT; "
        "open a web page to see, and try again",
    )


def no_space(place: Place, access: Access, needed: str = "") -> HubError:
    what = f" ({needed})" if needed else ""
    return HubError("disk", f"{place}: no space left in {access.cache}{what}; free some, or pass another cache_dir")


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
    if isinstance(error, httpx.LocalProtocolError | UnicodeEncodeError):
        return HubError(
            "unauthorised", f"{place}: the token holds characters that none has; mend HF_TOKEN, or run hf auth login"
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return HubError(
            "redirect", f"{place}: the Hub leads to an address that is not of the web; check HF_ENDPOINT and the proxy"
        )
    if isinstance(error, httpx.TooManyRedirects):
        return HubError(
            "redirect", f"{place}: the Hub redirects without end; check HF_ENDPOINT and the network's proxy"
        )
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return HubError("cut", f"{place}: the connection was cut; run it again, and what was fetched is kept")
    # What is no JSON, or lacks what the client looks for in it.
    malformed = isinstance(error, ValueError | LookupError | TypeError | AttributeError)
    if isinstance(error, httpx.DecodingError) or (malformed and not isinstance(error, OSError)):
        return answer(place)
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubError("cut", f"{place}: a file came with another size than was announced; run it again")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return _status(status, place)
    if isinstance(error, OSError) and error.errno in FULL:
        return no_space(place, access)
    if isinstance(error, OSError) and error.errno in READ_ONLY:
        return HubError(
            "disk", f"{place}: {access.cache} cannot be written; pass another cache_dir, or set HF_HUB_CACHE"
        )
    if type(error).__name__ == "FileMetadataError":
        return answer(place)
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
