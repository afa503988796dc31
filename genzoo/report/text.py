"""Numbers and names as people read them. Light: never imports torch."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from genzoo.errors import shorten

#: What a table shows for "no number": an en dash.
NOTHING = "\N{EN DASH}"

#: Longest name in a head, a legend or a sentence; whole names stand in the list of settings.
LONGEST = 60

ARROWS = {"lower": "↓", "higher": "↑", "": ""}

#: Round brackets are no part of a link where square ones are none.
_UNSAFE = re.compile(r"([\\`*_{}\[\]#+!|~])")


def number(value: float) -> str:
    """At most two decimals, and three significant digits below 1; no exponent where people can do without."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if size >= 1 else 3 if size >= 0.1 else 4 if size >= 0.01 else 5}f}".rstrip("0").rstrip(".")


def seconds(value: float) -> str:
    """A duration in the unit that people would use."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def count(value: float) -> str:
    """A large number with a suffix: 2.25 M."""
    for limit, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def megabytes(value: float) -> str:
    """Bytes as MB of 10^6."""
    return f"{value / 1e6:.3g} MB"


def span(low: float, high: float) -> str:
    """An interval; "to", because a dash beside a minus sign misleads."""
    return f"{number(low)} to {number(high)}"


def moment(text: str) -> str:
    """A time of ISO 8601 as people write it, to the minute; other text as it is."""
    try:
        return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return inert(text)


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def inert(text: str) -> str:
    """Text without control characters, bidirectional overrides or line breaks: inert in a terminal."""
    kept = (ch if unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else " " for ch in text)
    return " ".join("".join(kept).split())


def brief(text: str, most: int = LONGEST) -> str:
    """Inert text that is cut where it is longer than anybody reads."""
    return shorten(inert(text), most)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    entities = inert(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A bare address would become a link by itself.
    return _UNSAFE.sub(r"\\\1", entities).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def differences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets each row apart from the others: its "key=value" wherever not all rows agree."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    apart = [key for key in keys if len({repr(row.get(key)) for row in rows}) > 1]
    return [", ".join(f"{key}={row[key]}" for key in apart if key in row) for row in rows]
