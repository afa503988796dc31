"""The base of every settings object: immutable, strict, and finite."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

T = TypeVar("T")

#: A tuple that may also be written as a list, whose items are still checked strictly.
Seq = Annotated[tuple[T, ...], Strict(False), Field(max_length=4096)]

#: A positive size (channels, layers, pixels): bounded, so that no file can ask for a terabyte.
Size = Annotated[int, Field(ge=1, le=65536)]

#: A finite real number of ordinary magnitude.
Real = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Settings that cannot change after they were checked.

    Unknown keys, wrong types (``"20"`` for an int, ``true`` for a number), NaN and infinity are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
