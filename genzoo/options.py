"""Options: what a generator can be asked per call, and what of it was asked. Light: never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, Strict, ValidationError

from genzoo.errors import OptionError, UnknownName, explain, quoted
from genzoo.frozen import Frozen

if TYPE_CHECKING:
    from genzoo.cards import Card
    from genzoo.generator import Generator
    from genzoo.registry import Zoo


class Options(Frozen):
    """What every generator can be asked per call. A family adds its own fields, each described and defaulted."""

    labels: Annotated[
        Annotated[tuple[int | str, ...], Strict(False)] | int | str | None,
        Field(description="class numbers or names, one or one per image; by default each seed draws its own"),
    ] = None


def read_options(family: type[Generator], card: Card | None, given: Mapping[str, Any]) -> Options:
    """A family's options: its defaults, overridden by the card's, overridden by ``given``: ``Generator.options``."""
    defaults = dict(card.options) if card is not None else {}
    given = {key: plain(value) for key, value in given.items()}
    name = card.name if card is not None else family.__name__
    unknown = [key for key in given if key not in family.Options.model_fields]
    if unknown:
        raise OptionError(str(UnknownName("option", unknown[0], family.Options.model_fields)) + f" ({name})")
    try:
        return family.Options(**{**defaults, **given})
    except ValidationError as error:
        raise OptionError(explain(error, f"options of {name}")) from None


def check_known(options: Iterable[str], families: Iterable[type[Generator]]) -> None:
    """Raises OptionError for an option that no family knows: a mistake, not a wish for somebody else."""
    known = {key for family in families for key in family.Options.model_fields}
    for key in options:
        if key not in known:
            raise OptionError(f"none of these models has an option {quoted(key)}; known: {', '.join(sorted(known))}")


def check_specs(zoo: Zoo, options: Mapping[str, Any]) -> None:
    """Raises GenzooError for a scheduler or a guidance that nobody brings, or whose settings are wrong."""
    for kind in ("scheduler", "guidance"):
        if isinstance(options.get(kind), str):
            zoo.make(kind, options[kind])


def fitting_options(family: type[Generator], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a family knows; a GAN has no steps, and that is no mistake."""
    return {key: value for key, value in options.items() if key in family.Options.model_fields}


def plain(value: Any) -> Any:
    """Tensors and arrays as lists or bare numbers, which is what is checked."""
    return value.tolist() if hasattr(value, "tolist") else value
