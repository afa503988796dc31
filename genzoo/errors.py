"""The errors a user can meet: one line that says what is wrong and what to type next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import ValidationError


#: Names that one message lists; the others are counted.
MOST_NAMES = 40

#: Faults that one message lists; the others are counted.
MOST_FAULTS = 4


class GenzooError(Exception):
    """A mistake that the user can mend. The CLI prints it on one line and exits with 2."""


class UnknownName(GenzooError):
    """A name that nothing was registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        if close := nearest(name, known):
            advice = f"did you mean {close!r}?"
        elif known:
            more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
            advice = f"known: {', '.join(known[:MOST_NAMES])}{more}"
        else:
            advice = "none is registered"
        super().__init__(f"no {kind} named {quoted(name)}; {advice}{' ' + hint if hint else ''}")
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


class NotFinite(TrainingError):
    """A loss, weights or images that hold NaN or infinity: the training of the model went astray."""


class ResultsError(GenzooError):
    """Results that cannot be read, or that may not stand beside one another."""


#: What pydantic's fault is called where a file is of a later version than is read here.
NEWER = "newer_version"


def newer(found: object, ours: object) -> str:
    """What is wrong with a file of the version ``found`` where ``ours`` is an earlier one, and what to do."""
    return f"{quoted(found)} is of a newer genzoo than this one, which reads {ours!r}; update genzoo"


def is_newer(found: object, ours: int) -> bool:
    """Whether what a file says of its version is a later one than ``ours``."""
    return type(found) is int and found > ours


def explain(error: ValidationError, what: str, model: Any = None) -> str:
    """One line for a pydantic error: the fields, what is wrong with each, and for a misspelt one the nearest name.

    Args:
        error: what pydantic found.
        what: names the thing that was being read, as ``"options of ddpm.fashion-mnist"``.
        model: the class that was read into; without it, no nearest name is looked for.
    """
    parts = []
    found = faults(error)
    for item in found[:MOST_FAULTS]:
        key = shorten(".".join(str(part) for part in item["loc"]) or "the whole", 120)
        if item["type"] == "extra_forbidden":
            close = nearest(str(item["loc"][-1]), _fields(model, item["loc"][:-1]))
            parts.append(f"{key}: unknown key" + (f"; did you mean {close!r}?" if close else ""))
        elif item["type"] == NEWER:
            parts.append(f"{key} {item['msg']}")
        else:
            shown = "" if item["type"] == "missing" else f" (got {quoted(item['input'], 60)})"
            parts.append(f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}")
    more = f"; and {len(found) - MOST_FAULTS} more" if len(found) > MOST_FAULTS else ""
    return f"{what}: " + "; ".join(parts) + more


def faults(error: ValidationError) -> list[Any]:
    """pydantic's own list, unknown keys first: where a key is misspelt, it is also missing, and that leads nowhere.

    Of a file of a later version only that is told: what else it holds, nobody here can judge.
    """
    found = error.errors(include_url=False, include_context=False)
    if later := [item for item in found if item["type"] == NEWER]:
        return list(later)
    return sorted(found, key=lambda item: item["type"] != "extra_forbidden")


def _fields(model: Any, path: Iterable[str | int]) -> set[str]:
    """Names of the fields that a mapping at ``path`` inside a model may have."""
    models = _models(model)
    for part in path:
        # A number in a list, or the tag of a union, is no field: the models stay.
        inner = [found.model_fields[part].annotation for found in models if part in found.model_fields]
        models = [found for annotation in inner for found in _models(annotation)] if inner else models
    return {name for found in models for name in found.model_fields}


def _models(annotation: Any) -> list[Any]:
    """The models that an annotation is made of."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most like a misspelt one; None where none is."""
    import difflib

    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)), None)


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= most else text[: most - 3] + "..."


def quoted(value: Any, most: int = 80) -> str:
    """What was given, as an error shows it: text in quotation marks; of a long one the beginning."""
    return repr(shorten(value, most)) if isinstance(value, str) else shorten(repr(value), most)


def printable(text: str) -> str:
    """Text on one line that a terminal only shows: no escape sequence, line break or half character in it is left."""
    words = " ".join(text.split())
    return words if words.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def cause(error: BaseException) -> str:
    """What a plugin's failure was, on one line: the message, with the kind of error where it is not one of ours."""
    text = printable(str(error)) or "no message"
    return text if isinstance(error, GenzooError) else f"{type(error).__name__}: {text}"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch says so on the CPU by a bare RuntimeError."""
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
