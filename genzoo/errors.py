"""The errors a user can meet: one line that says what is wrong and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class GenzooError(Exception):
    """A mistake that the user can mend. The CLI prints it on one line and exits with 2."""


class UnknownName(GenzooError):
    """A name that nothing was registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        if close:
            advice = f"did you mean {close[0]!r}?"
        elif known:
            advice = f"known: {', '.join(known)}"
        else:
            advice = "none is registered"
        super().__init__(f"no {kind} named {name!r}; {advice}{' ' + hint if hint else ''}")
        self.kind, self.name = kind, name


class CardError(GenzooError):
    """A card or catalogue that breaks the rules; the message names file, line and key."""


class OptionError(GenzooError, ValueError):
    """A setting that is unknown, of the wrong type, or out of range."""


class WeightsError(GenzooError):
    """Weights that are missing, cut short, changed, or of another model."""


class DataError(GenzooError):
    """A data set that cannot be found or read."""


class TrainingError(GenzooError):
    """A training run that cannot start, continue or resume."""


class ResultsError(GenzooError):
    """Results that cannot be read, or that may not stand beside one another."""


def explain(error: ValidationError, what: str) -> str:
    """One line for a pydantic error: every field, what is wrong with it, and for a misspelt one the nearest name.

    ``what`` names the thing that was being read, as ``"options of ddpm.fashion-mnist"``.
    """
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"]) or "the whole"
        if item["type"] == "extra_forbidden":
            parts.append(f"{key}: unknown key")
        else:
            got = repr(item["input"])
            shown = "" if item["type"] == "missing" else f" (got {got if len(got) < 60 else got[:57] + '...'})"
            parts.append(f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return f"{what}: " + "; ".join(parts)
