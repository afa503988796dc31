"""The base of every settings object: immutable, strict, and finite."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints
from pydantic_core import PydanticCustomError

from genzoo.errors import NEWER, is_newer, newer

T = TypeVar("T")

#: A tuple that may also be written as a list, whose items are still checked strictly.
Seq = Annotated[tuple[T, ...], Strict(False), Field(max_length=4096)]

#: A positive size (channels, layers, pixels): bounded, so that no file can ask for a terabyte.
Size = Annotated[int, Field(ge=1, le=65536)]

#: A finite real number of ordinary magnitude.
Real = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]

#: A measured number, and a number of things.
Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]

#: A part of a whole.
Share = Annotated[float, Field(ge=0, le=1)]

#: What names something to people, and some sentences.
Label = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=4000)]


def _known(version: int) -> int:
    if is_newer(version, 1):
        raise PydanticCustomError(NEWER, newer(version, 1))
    return version


#: The version of a file's schema. There is one so far; a later one is refused as such, whatever else the file holds.
Version = Annotated[int, Field(ge=1), AfterValidator(_known)]


class Frozen(BaseModel):
    """Settings that cannot change after they were checked.

    Unknown keys, wrong types (``"20"`` for an int, ``true`` for a number), NaN and infinity are refused.
    """

    # A validator is built when it is first used: a command that lists the catalogue needs one of dozens.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)
